"""What the work of all commands has in common: settings, logs, signals, the exit status, the last line."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import uvloop

from shared.logs.setup import configure_logging
from shared.process.complaint import complaint_about
from shared.process.orderly import FAILURE, complain
from shared.settings import CommandSettings, load_settings

SettingsType = TypeVar("SettingsType", bound=CommandSettings)
Command = Callable[[SettingsType, asyncio.Event], Awaitable[int]]


class CommandError(Exception):
    """The command cannot do what was asked; the message says what to do next."""


def run_command(
    name: str,
    command: Command[SettingsType],
    kind: type[SettingsType] = CommandSettings,  # type: ignore[assignment]  # where none is given
) -> int:
    """Run the command with the environment's settings and return the exit status.

    Log lines go to LOG_FILE, and to stderr unless that is a terminal.

    Args:
        name: the process's name in its log lines.
        command: takes the settings, and an event that SIGINT or SIGTERM sets: then it is to come to
            an orderly end. A second signal ends the process.
        kind: of the settings.

    """
    try:
        settings = load_settings(kind)
        configure_logging(name, settings.log_file, None if sys.stderr.isatty() else sys.stderr)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_interruptible(settings, command))
    except CommandError as error:
        complain(str(error))
        return FAILURE
    except Exception as error:  # noqa: BLE001 - its own text may quote what users wrote
        said, status = complaint_about(error)
        complain(*said.split("\n"))
        return status


async def _interruptible(settings: SettingsType, command: Command[SettingsType]) -> int:
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()

    def interrupt(number: signal.Signals) -> None:
        interrupted.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt, number)
    return await command(settings, interrupted)
