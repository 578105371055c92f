"""A worker's process, from its settings to its exit status."""

import asyncio
import contextlib
import sys

import uvloop

from shared.logs import configure_logging
from shared.settings import WRONG_USAGE, Settings, SettingsError, load_settings
from shared.tracing import require_exporter
from worker.main import serve


def main() -> int:
    """Work until a signal and return the exit status."""
    try:
        settings = load_settings(Settings)
        require_exporter()
        configure_logging("worker", settings.log_file, sys.stdout)
        with (
            contextlib.suppress(asyncio.CancelledError),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(serve(settings))
    except SettingsError as error:  # some are such that only the database, or the port, can tell
        print(error, file=sys.stderr)
        return WRONG_USAGE
    return 0
