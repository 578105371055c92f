"""`python -m worker`: run one worker process."""

import argparse
import asyncio
import contextlib
import sys

import uvloop

from shared.doorbell import REDIS_ERRORS
from shared.logs import configure_logging
from shared.settings import Settings, SettingsError, load_settings
from worker.health import is_any_worker_alive

DESCRIPTION = """\
Apply pending outbox events to project_collections until SIGTERM or Ctrl-C.

Any number of workers may run at once. PostgreSQL holds the work and Redis only
wakes the worker: while Redis is away, PostgreSQL is asked directly."""

VARIABLES = (
    "database_url",
    "database_pooler",
    "redis_url",
    "log_file",
    "dead_letter_retention_days",
    "worker_metrics_port",
    "worker_metrics_host",
)
EPILOG = f"""\
environment:
{chr(10).join(f"  {name.upper():26} {Settings.model_fields[name].description}" for name in VARIABLES)}

exit status: 0 after a signal, 1 when the worker failed or --check found none alive,
2 on wrong usage or an incomplete environment."""


async def check(settings: Settings) -> int:
    """Say whether a worker of this host is alive; for a container's health check."""
    try:
        is_alive = await is_any_worker_alive(settings)
    except REDIS_ERRORS as error:
        print(f"unknown: Redis does not answer ({type(error).__name__})", file=sys.stderr)
        return 1
    print("alive" if is_alive else "no worker of this host has polled Redis within the last seconds")
    return 0 if is_alive else 1


def grammar() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = argparse.ArgumentParser(
        prog="python -m worker",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--check", action="store_true", help="only say whether a worker of this host is alive"
    )
    return parser


def main() -> int:
    """Do what was asked and return the exit status."""
    arguments = grammar().parse_args()
    try:
        settings = load_settings(Settings)
        return asyncio.run(check(settings)) if arguments.check else work(settings)
    except SettingsError as error:  # some are such that only the database can tell
        print(error, file=sys.stderr)
        return 2


def work(settings: Settings) -> int:
    """Run the worker and return the exit status.

    Raises:
        SettingsError: it cannot work with these.

    """
    # Not for --check, which starts a Python every half minute and needs half a second's work less so.
    from shared.tracing import require_exporter  # noqa: PLC0415
    from worker.main import serve  # noqa: PLC0415
    from worker.metrics import MetricsPortError  # noqa: PLC0415

    require_exporter()
    configure_logging("worker", settings.log_file, sys.stdout)
    with (
        contextlib.suppress(asyncio.CancelledError),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        try:
            runner.run(serve(settings))
        except MetricsPortError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
