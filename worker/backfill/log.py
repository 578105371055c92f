"""The log lines of a run."""

import time

import structlog

from shared.backfill_runs import BackfillRun
from worker.backfill.chunk import Chunk
from worker.backfill.speed import Speed, eta_seconds
from worker.backfill.throttle import Throttle

logger = structlog.get_logger(__name__)

LOG_SECONDS = 1


class RunLog:
    """Logs one run; of its chunks at most one line a second, with the sums since the line before."""

    def __init__(self) -> None:
        self._speed = Speed()
        self._throttled_by: str | None = None
        self._logged_at = time.monotonic()
        self._chunks = self._rows = self._enqueued = 0
        self._longest_seconds = 0.0

    def started(self, run: BackfillRun) -> None:
        """Log that this process drives the run from now on, and from where."""
        self._speed.sample(run.processed)
        logger.info(
            "backfill_started",
            run_id=run.id,
            resumed=run.processed > 0,
            processed=run.processed,
            planned=run.planned,
            project_id=run.project_id,
            rate=run.rate,
            max_pending=run.max_pending,
            chunk_size=run.chunk_size,
            driver=run.driver,
        )

    def committed(self, chunk: Chunk) -> None:
        """Count the chunk; log it once a second and at the run's end."""
        self._chunks += 1
        self._rows += chunk.rows
        self._enqueued += chunk.enqueued
        self._longest_seconds = max(self._longest_seconds, chunk.seconds)
        if time.monotonic() - self._logged_at >= LOG_SECONDS or chunk.run.status != "running":
            self.flush(chunk.run)

    def flush(self, run: BackfillRun) -> None:
        """Log what was counted since the line before, if anything."""
        if not self._chunks:
            return
        rate = self._speed.sample(run.processed)
        eta = eta_seconds(run.planned, run.processed, rate)
        logger.info(
            "backfill_chunk",
            run_id=run.id,
            chunks=self._chunks,
            rows=self._rows,
            enqueued=self._enqueued,
            skipped=self._rows - self._enqueued,
            chunk_ms=round(self._longest_seconds * 1000, 3),
            chunk_size=run.chunk_size,
            processed=run.processed,
            planned=run.planned,
            rows_a_second=None if rate is None else round(rate),
            eta_seconds=None if eta is None else round(eta, 1),
        )
        self._logged_at = time.monotonic()
        self._chunks = self._rows = self._enqueued = 0
        self._longest_seconds = 0.0

    def throttled(self, run: BackfillRun, throttle: Throttle) -> None:
        """Log why the run waits, unless the line before named the same cause."""
        if throttle.cause != self._throttled_by:
            logger.info("backfill_throttled", run_id=run.id, cause=throttle.cause, reason=throttle.reason)
        self._throttled_by = throttle.cause

    def unthrottled(self, run: BackfillRun) -> None:
        """Log that the run goes on, if it was logged as waiting."""
        if self._throttled_by is not None:
            logger.info("backfill_unthrottled", run_id=run.id)
        self._throttled_by = None

    def rate_changed(self, run: BackfillRun) -> None:
        """Log the rate that an operator gave the run under way."""
        logger.info("backfill_rate_changed", run_id=run.id, rate=run.rate)

    def ended(self, run: BackfillRun, event: str) -> None:
        """Log how this process's turn ended, with what the run has done so far."""
        self.flush(run)
        logger.info(
            event,
            run_id=run.id,
            processed=run.processed,
            planned=run.planned,
            enqueued=run.enqueued,
            skipped=run.skipped,
            missing=run.missing,
            mismatched=run.mismatched,
            orphaned=run.orphaned,
            duration_seconds=round(run.duration_seconds, 3),
            driver=run.driver,
        )
