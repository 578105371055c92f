"""What a worker tells of a batch that is committed: in its log, its metrics and its traces."""

from worker.batch import Batch
from worker.batch_log import log_batch


def report_batch(batch: Batch, wake: str) -> None:
    """Tell of a batch that settled or postponed events.

    Args:
        batch: it is committed, and not empty.
        wake: what woke the worker: `doorbell`, `sweep` or `poll`.

    """
    log_batch(batch, wake)
