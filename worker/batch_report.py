"""What a worker tells of a batch that is committed: in its log, its metrics and its traces."""

from collections.abc import Sequence
from typing import Protocol

from worker.batch import Batch
from worker.batch_log import log_batch
from worker.tracing import trace_batch


class BatchObserver(Protocol):
    """Whoever is told of batches besides the log; what it does must be quick, and must not raise."""

    def batch_settled(self, batch: Batch) -> None:
        """Take note of a batch that settled or postponed events, and is committed."""

    def batch_failed(self, error: Exception) -> None:
        """Take note of a batch that changed nothing."""


def report_batch(batch: Batch, wake: str, observers: Sequence[BatchObserver] = ()) -> None:
    """Tell of a batch that settled or postponed events.

    Args:
        batch: it is committed, and not empty.
        wake: what woke the worker: `doorbell`, `sweep` or `poll`.
        observers: who is told besides the log.

    """
    trace_batch(batch, wake)  # first: its spans end when the batch did
    log_batch(batch, wake)
    for observer in observers:
        observer.batch_settled(batch)
