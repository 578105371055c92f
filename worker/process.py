"""A worker's process, from its settings to its exit status."""

import asyncio
import contextlib
import sys

import uvloop

from shared.logs.setup import configure_logging
from shared.process.complaint import complaint_about
from shared.process.orderly import SUCCESS, complain
from shared.settings import Settings, load_settings
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
    except Exception as error:  # noqa: BLE001 - its own text may quote what users wrote
        said, status = complaint_about(error)  # of some settings only the database knows that they are wrong
        complain(*said.split("\n"))
        return status
    return SUCCESS
