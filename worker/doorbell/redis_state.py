"""Whether Redis is of use to this worker: it is, it is away, or it is there and refuses something."""

from typing import Literal

from shared.redis.outage import Fault, Outage
from worker.vitals.heartbeat import Heart

Part = Literal["polling", "listening", "ringing"]


class RedisState:
    """What each part of the worker last met with; logged, and passed on to the heart."""

    def __init__(self, heart: Heart) -> None:
        self._heart = heart
        self._faults: dict[Part, Fault] = {}
        self._outage = Outage("redis_lost", "redis_restored")

    @property
    def is_well(self) -> bool:
        """Whether ringing, listening and polling all work."""
        return not self._faults

    def note(self, part: Part, fault: Fault | None) -> None:
        """Record how a part fares; each part records it at least every few seconds."""
        if fault is None:
            self._faults.pop(part, None)
        else:
            self._faults[part] = fault
        worst = self._worst()
        self._outage.note(worst)
        self._heart.note_redis(worst)

    def _worst(self) -> Fault | None:
        """Return the fault that says most: a refusal says more than silence."""
        faults = sorted(self._faults.values(), key=lambda fault: fault.hint is None)
        return faults[0] if faults else None
