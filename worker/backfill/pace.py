"""How much at once and how fast: a chunk's size follows its time, and a rate keeps rows apart."""

import asyncio
import contextlib
import time

LEAST_CHUNK_ROWS = 100
MOST_CHUNK_ROWS = 10_000
CHUNK_SECONDS = 0.1  # writers of a chunk's rows wait for its commit
CHUNKS_A_SECOND = 4  # of a run with a rate, so that it does not come in bursts


def next_chunk_size(size: int, seconds: float) -> int:
    """Return how many rows take CHUNK_SECONDS, after `size` rows took `seconds`.

    One step at most doubles or halves, so that one slow chunk does not decide.
    """
    fitting = size * CHUNK_SECONDS / max(seconds, 1e-6)
    bounded = round(min(max(fitting, size / 2), size * 2))
    return max(min(bounded, MOST_CHUNK_ROWS), min(LEAST_CHUNK_ROWS, size), 1)


class Pace:
    """Keeps a run at its rate: says how many rows may come now, and when."""

    def __init__(self, rate: int | None) -> None:
        """Take the rate in rows a second; None means as fast as may be."""
        self._rate = rate
        self._due_at = time.monotonic()

    @property
    def rows(self) -> int | None:
        """Return how many rows may be read at once; None for any number."""
        return None if self._rate is None else max(1, self._rate // CHUNKS_A_SECOND)

    @property
    def wait_seconds(self) -> float:
        """Return how long to wait before the next rows; a second at most."""
        return max(0.0, self._due_at - time.monotonic())

    def spend(self, rows: int) -> None:
        """Count rows that were read. Time that was lost to throttling is not made up for."""
        if self._rate is not None:
            self._due_at = max(self._due_at, time.monotonic()) + rows / self._rate


async def rest(interrupted: asyncio.Event, seconds: float) -> None:
    """Sleep, but wake up when interrupted."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await interrupted.wait()
