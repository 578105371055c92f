"""How fast a run goes at the moment, and how long it will take at that speed."""

import time
from collections import deque

WINDOW_SECONDS = 10
SAMPLE_SECONDS = 0.1


class Speed:
    """The speed over about the last ten seconds, in rows a second."""

    def __init__(self) -> None:
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


def eta_seconds(planned: int, processed: int, rows_a_second: float | None) -> float | None:
    """Return the seconds left at this speed; None while nothing moves."""
    if not rows_a_second:
        return None
    return max(0, planned - processed) / rows_a_second
