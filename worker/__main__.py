"""`python -m worker`: run one worker process."""

import argparse
import asyncio
import contextlib
import sys

import uvloop

from shared.logs import configure_logging
from shared.settings import Settings, SettingsError, load_settings
from worker.main import serve

DESCRIPTION = """\
Apply pending outbox events to project_collections until SIGTERM or Ctrl-C.

Any number of workers may run at once. PostgreSQL holds the work and Redis only
wakes the worker: while Redis is away, PostgreSQL is asked directly."""

EPILOG = f"""\
environment:
{chr(10).join(f"  {name.upper():16} {field.description}" for name, field in Settings.model_fields.items())}

exit status: 0 after a signal, 1 when the worker failed, 2 on wrong usage."""


def main() -> int:
    """Run the worker and return the exit status."""
    argparse.ArgumentParser(
        prog="python -m worker",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    try:
        settings = load_settings(Settings)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the terminal is where this belongs
        return 2
    configure_logging("worker", settings.log_file)
    with (
        contextlib.suppress(asyncio.CancelledError),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(serve(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
