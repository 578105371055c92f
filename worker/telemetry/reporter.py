"""What a worker reports of a batch that is committed: in its log, its metrics and its traces."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol

from worker.relay.batch import Batch
from worker.telemetry.log import Line, event_lines, log_events, log_summary
from worker.telemetry.spans import trace_batch

LINES_AT_ONCE = 100  # a third of a millisecond


class BatchObserver(Protocol):
    """Is notified of each batch. What it does must be quick, and must not raise."""

    def batch_settled(self, batch: Batch) -> None:
        """Note a batch that settled or postponed events, and is committed."""

    def batch_failed(self, error: Exception) -> None:
        """Note a batch that changed nothing."""


class BatchReporter:
    """Reports batches, one after the other; of many events a few at a time, beside the next batch.

    While PostgreSQL works on that one the process has nothing else to do. Nor does anything else that
    it does wait longer than for LINES_AT_ONCE.
    """

    def __init__(self, observers: Sequence[BatchObserver] = ()) -> None:
        self._observers = observers
        self._rest: asyncio.Task[None] | None = None

    async def report(self, batch: Batch, wake: str) -> None:
        """Begin to report a batch that is committed and not empty, once the one before is reported.

        Args:
            batch: it settled or postponed events.
            wake: what woke the worker: `doorbell`, `sweep` or `poll`.

        """
        await self.flush()
        trace_batch(batch, wake)  # first: its spans end when the batch did
        lines = event_lines(batch)
        is_more = _log_some(lines)  # before anything that takes time: they bear the time of the commit
        log_summary(batch, wake)
        for observer in self._observers:
            observer.batch_settled(batch)
        if is_more:
            self._rest = asyncio.create_task(_log_all(lines), name="report")

    def failed(self, error: Exception) -> None:
        """Notify the observers of a batch that changed nothing."""
        for observer in self._observers:
            observer.batch_failed(error)

    async def flush(self) -> None:
        """Wait until every line is written. Cancelling the caller does not cancel the writing."""
        if self._rest is not None:
            await asyncio.shield(self._rest)
            self._rest = None


def _log_some(lines: Iterator[Line]) -> bool:
    """Return whether there may be more."""
    some = list(islice(lines, LINES_AT_ONCE))
    log_events(some)
    return len(some) == LINES_AT_ONCE


async def _log_all(lines: Iterator[Line]) -> None:
    is_more = True
    while is_more:
        await asyncio.sleep(0)
        is_more = _log_some(lines)
