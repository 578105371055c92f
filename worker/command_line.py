"""What the work of all commands has in common: settings, logs, signals, the exit status, the last line."""

import asyncio
import json
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping

import uvloop
from rich.console import Console

from shared.advice import advice_on
from shared.faults import is_transient, reason, sqlstate
from shared.logs import configure_logging
from shared.settings import CommandSettings, SettingsError, load_settings

SUCCESS, FAILURE, WRONG_USAGE = 0, 1, 2

Command = Callable[[CommandSettings, asyncio.Event], Awaitable[int]]

stdout = Console(highlight=False)  # results
stderr = Console(stderr=True, highlight=False)  # progress and complaints


class CommandError(Exception):
    """The command cannot do what was asked; the message says what to do next."""


def print_json(result: Mapping[str, object]) -> None:
    """Print the one line that a machine reads."""
    stdout.out(json.dumps(result, ensure_ascii=False, default=str))


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
            said = advice_on(error) or _patience_with(error) or _trace_of(error)
            stderr.print(said, markup=False, soft_wrap=True)
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


def _patience_with(error: Exception) -> str | None:
    if not is_transient(error):
        return None
    what = sqlstate(error) or type(error).__name__
    return f"PostgreSQL is away or busy ({what}). Check DATABASE_URL; try again."


def _trace_of(error: Exception) -> str:
    """Say where the command failed and why, without the error's text: that may quote what users wrote."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{frames}{type(error).__name__}: {reason(error)} ({sqlstate(error)})"
