"""What all commands have in common: settings, logs, signals, the exit status, the last line."""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import uvloop
from rich.console import Console

from shared.doorbell import BULK_CHANNEL, Doorbell, open_redis
from shared.faults import NOT_MIGRATED, is_transient, reason, sqlstate
from shared.logs import configure_logging
from shared.settings import CommandSettings, SettingsError, load_settings

SUCCESS, FAILURE, WRONG_USAGE = 0, 1, 2

VARIABLES = CommandSettings.model_fields.items()
ENVIRONMENT = f"""\
environment:
{chr(10).join(f"  {name.upper():14} {field.description}" for name, field in VARIABLES)}

exit status: 0 on success, 1 when work failed or is not finished, or drift is left,
2 on wrong usage or an incomplete environment."""

Command = Callable[[CommandSettings, asyncio.Event], Awaitable[int]]

stdout = Console(highlight=False)  # results
stderr = Console(stderr=True, highlight=False)  # progress and complaints


class CommandError(Exception):
    """The command cannot do what was asked; the message says what to do next."""


def argument_parser(module: str, description: str, *, takes_json: bool = True) -> argparse.ArgumentParser:
    """Make a parser whose --help explains the environment and the exit status as well.

    Args:
        module: what follows `python` on the command line.
        description: the first paragraphs of --help.
        takes_json: False when each of its subcommands takes --json for itself, see `add_json`.

    """
    parser = argparse.ArgumentParser(
        prog=f"python {module}",
        description=description,
        epilog=ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if takes_json:
        add_json(parser)
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    """Let the command take --json."""
    parser.add_argument(
        "--json",
        action="store_true",
        help="end with one machine-readable line on stdout, and nothing else there",
    )


def print_json(result: Mapping[str, object]) -> None:
    """Print the one line that a machine reads."""
    stdout.out(json.dumps(result, ensure_ascii=False, default=str))


@contextlib.asynccontextmanager
async def doorbell_of(settings: CommandSettings) -> AsyncIterator[Doorbell | None]:
    """Yield a doorbell that rings while the block lasts; None without Redis: workers look by themselves."""
    if settings.redis_url is None:
        yield None
        return
    redis = open_redis(settings.redis_url.get_secret_value())
    doorbell = Doorbell(redis, BULK_CHANNEL)  # commands append no user's write
    ringing = asyncio.create_task(doorbell.run())
    try:
        yield doorbell
    finally:
        ringing.cancel()
        await asyncio.gather(ringing, return_exceptions=True)
        await redis.aclose()


def run_command(name: str, command: Command) -> int:
    """Run the command with the environment's settings and return the exit status.

    Log lines go to LOG_FILE, and to stderr unless that is a terminal.

    Args:
        name: the process's name in its log lines.
        command: takes the settings, and an event that SIGINT or SIGTERM sets: then it is to come to
            an orderly end. A second signal ends the process.

    """
    try:
        settings = load_settings(CommandSettings)
    except SettingsError as error:
        stderr.print(str(error), markup=False, soft_wrap=True)
        return WRONG_USAGE
    configure_logging(name, settings.log_file, None if sys.stderr.isatty() else sys.stderr)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_interruptible(settings, command))
        except CommandError as error:
            stderr.print(str(error), markup=False, soft_wrap=True)
        except SettingsError as error:  # that only the database can tell
            stderr.print(str(error), markup=False, soft_wrap=True)
            return WRONG_USAGE
        except Exception as error:  # noqa: BLE001 - its own text may quote what users wrote
            stderr.print(_advice_on(error) or _trace_of(error), markup=False, soft_wrap=True)
    return FAILURE


async def _interruptible(settings: CommandSettings, command: Command) -> int:
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()

    def interrupt(number: signal.Signals) -> None:
        interrupted.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt, number)
    return await command(settings, interrupted)


def _advice_on(error: Exception) -> str | None:
    code = sqlstate(error)
    if code in NOT_MIGRATED:
        return "The database lacks our tables, or columns of them. Run `alembic upgrade head` first."
    if is_transient(error):
        return f"PostgreSQL is away or busy ({code or type(error).__name__}). Check DATABASE_URL; try again."
    return None


def _trace_of(error: Exception) -> str:
    """Say where the command failed and why, without the error's text: that may quote what users wrote."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{frames}{type(error).__name__}: {reason(error)} ({sqlstate(error)})"
