"""How much at once and how fast: a chunk's size follows its time, and a rate keeps rows apart."""

import math
import time

LEAST_CHUNK_ROWS = 100
MOST_CHUNK_ROWS = 10_000
CHUNK_SECONDS = 0.1  # writers of a chunk's rows wait for its commit
CHUNKS_A_SECOND = 4  # of a run with a rate, so that it does not come in bursts
# While others append to the outbox, mostly users who write, chunks are small, and a rest follows each.
OTHERS_LATELY_SECONDS = 1.0
POLITE_ROWS = 100
REST_PER_CHUNK = 2.0  # times its duration
LONGEST_REST_SECONDS = 0.5  # a heartbeat each second


def next_chunk_size(size: int, seconds: float) -> int:
    """Return how many rows take CHUNK_SECONDS, after `size` rows took `seconds`.

    One step at most doubles or halves, so that one slow chunk does not decide.
    """
    fitting = size * CHUNK_SECONDS / max(seconds, 1e-6)
    bounded = round(min(max(fitting, size / 2), size * 2))
    return max(min(bounded, MOST_CHUNK_ROWS), min(LEAST_CHUNK_ROWS, size), 1)


class Pace:
    """How many rows a run may read now, and when the next ones, at its rate and out of users' way.

    rate: in rows a second; None: as fast as may be. slowed_by: what the next rows wait for; None: nothing.
    """

    slowed_by: str | None = None

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._due_at = time.monotonic()
        self._others_seen_at = -math.inf

    @property
    def rows(self) -> int | None:
        """Return how many rows may be read at once; None for any number."""
        bounds = [POLITE_ROWS] if self._is_polite else []
        if self._rate is not None:
            bounds.append(max(1, self._rate // CHUNKS_A_SECOND))
        return min(bounds, default=None)

    @property
    def wait_seconds(self) -> float:
        """Return how long to wait before the next rows; a second at most."""
        return max(0.0, self._due_at - time.monotonic())

    def keep_to(self, rate: int | None) -> bool:
        """Take another rate, from the next rows on; return whether it is another."""
        changed = rate != self._rate
        if changed:
            self._rate, self._due_at = rate, time.monotonic()
        return changed

    def spend(self, rows: int, seconds: float = 0.0) -> None:
        """Count rows that were read in this time. What was lost to throttling is not made up for."""
        now = time.monotonic()
        rested_at = now + (min(seconds * REST_PER_CHUNK, LONGEST_REST_SECONDS) if self._is_polite else 0.0)
        allowed_at = now
        if self._rate is not None:
            allowed_at = max(self._due_at, now - seconds) + rows / self._rate
        self._due_at = max(rested_at, allowed_at)
        self.slowed_by = self._slowed_by(rested_at, allowed_at) if self._due_at > now else None

    def _slowed_by(self, rested_at: float, allowed_at: float) -> str:
        if rested_at >= allowed_at:
            return f"other writes, which go first: {POLITE_ROWS} rows at a time, and a rest after them"
        return f"its rate of {self._rate:,} rows/s"

    def see_others(self, events: int) -> None:
        """Note how many events others appended since the chunk before."""
        if events > 0:
            self._others_seen_at = time.monotonic()

    @property
    def _is_polite(self) -> bool:
        return time.monotonic() - self._others_seen_at < OTHERS_LATELY_SECONDS
