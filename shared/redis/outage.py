"""Something that comes and goes, and the lines that log it: few of them, however fast it flaps."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

logger = structlog.get_logger(__name__)

MOST_LINES = 2  # when it is lost, and when it is back
WITHIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Why Redis cannot be used; a hint where it is there and refuses, None where it does not answer."""

    error: str  # the exception's class
    hint: str | None = None


class Outage:
    """Whether Redis is of use now; changes too frequent to be logged are counted, and logged later."""

    def __init__(self, lost: str, restored: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._lost = lost
        self._restored = restored
        self._clock = clock
        self._told: str | None = None  # what the log believes: None is "all is well"
        self._told_at: deque[float] = deque(maxlen=MOST_LINES)
        self._untold = 0  # losses
        self.fault: Fault | None = None

    def note(self, fault: Fault | None) -> None:
        """Take how it is now, None when all is well; call it now and then also when nothing changed."""
        if fault is not None and self.fault is None:
            self._untold += 1
        self.fault = fault
        now = None if fault is None else (fault.hint or "away")
        if (now == self._told and not self._untold) or not self._may_tell():
            return
        self._told = now
        times = {"times": self._untold} if self._untold > 1 or (self._untold and fault is None) else {}
        self._untold = 0
        if fault is None:
            logger.info(self._restored, **times)
        else:
            hint = {"hint": fault.hint} if fault.hint else {}
            logger.warning(self._lost, error=fault.error, **times, **hint)

    def _may_tell(self) -> bool:
        at = self._clock()
        if len(self._told_at) == MOST_LINES and at - self._told_at[0] < WITHIN_SECONDS:
            return False
        self._told_at.append(at)
        return True
