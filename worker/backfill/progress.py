"""What a run says on its way: its speed, its remaining time, and its log lines."""

import time
from collections import deque

import structlog

from shared.backfill_runs import BackfillRun
from worker.backfill.chunk import Chunk
from worker.backfill.throttle import Throttle

logger = structlog.get_logger(__name__)

WINDOW_SECONDS = 10
SAMPLE_SECONDS = 0.1
LOG_SECONDS = 1


def eta_seconds(planned: int, processed: int, rows_a_second: float | None) -> float | None:
    """Return the seconds left at this speed; None while nothing moves."""
    if not rows_a_second:
        return None
    return max(0, planned - processed) / rows_a_second


class Speed:
    """The speed over about the last ten seconds, in rows a second."""

    def __init__(self) -> None:
        """Begin without a sample."""
        self._samples: deque[tuple[float, int]] = deque()

    def sample(self, processed: int) -> float | None:
        """Take the number of rows processed so far and return the speed; None at the first sample."""
        now = time.monotonic()
        while len(self._samples) > 1 and now - self._samples[1][0] >= WINDOW_SECONDS:
            self._samples.popleft()
        first_at, first = self._samples[0] if self._samples else (now, processed)
        if not self._samples or now - self._samples[-1][0] >= SAMPLE_SECONDS:
            self._samples.append((now, processed))
        return (processed - first) / (now - first_at) if now > first_at else None


class ProgressLog:
    """Writes a run's log lines: at most one a second for its chunks, which adds up those since the last."""

    def __init__(self) -> None:
        """Begin with nothing said."""
        self._speed = Speed()
        self._throttled_by: str | None = None
        self._said_at = time.monotonic()
        self._chunks = self._rows = self._enqueued = 0
        self._longest_seconds = 0.0

    def started(self, run: BackfillRun) -> None:
        """Say that this process drives the run from now on, and from where."""
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
        """Count the chunk, and say so once a second and at the run's end."""
        self._chunks += 1
        self._rows += chunk.rows
        self._enqueued += chunk.enqueued
        self._longest_seconds = max(self._longest_seconds, chunk.seconds)
        if time.monotonic() - self._said_at >= LOG_SECONDS or chunk.run.status != "running":
            self.flush(chunk.run)

    def flush(self, run: BackfillRun) -> None:
        """Say what was counted since the last line, if anything."""
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
        self._said_at = time.monotonic()
        self._chunks = self._rows = self._enqueued = 0
        self._longest_seconds = 0.0

    def throttled(self, run: BackfillRun, throttle: Throttle) -> None:
        """Say why the run waits, once for each cause that follows another."""
        if throttle.cause != self._throttled_by:
            logger.info("backfill_throttled", run_id=run.id, cause=throttle.cause, reason=throttle.reason)
        self._throttled_by = throttle.cause

    def unthrottled(self, run: BackfillRun) -> None:
        """Say that the run goes on, if it was said to wait."""
        if self._throttled_by is not None:
            logger.info("backfill_unthrottled", run_id=run.id)
        self._throttled_by = None

    def ended(self, run: BackfillRun, event: str) -> None:
        """Say how the driving of the run came to its end, with what the run has done so far."""
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
