"""When some worker was watched: the spells of heartbeats without a gap, whatever the order of lines."""

from bisect import bisect_right

from worker.dashboard.workers import BLIND_AFTER_SECONDS

MOST_SPELLS = 500


class Spells:
    """Spells in which some worker was heard at least each 15 seconds, by time; old ones are forgotten."""

    def __init__(self) -> None:
        self._begins: list[float] = []
        self._ends: list[float] = []

    def heard(self, at: float) -> None:
        """Take a heartbeat: it prolongs a spell, joins two, or begins one."""
        place = bisect_right(self._begins, at)
        begin = end = at
        first = place
        if place and at - self._ends[place - 1] <= BLIND_AFTER_SECONDS:
            first, begin, end = place - 1, self._begins[place - 1], max(at, self._ends[place - 1])
        if place < len(self._begins) and self._begins[place] - at <= BLIND_AFTER_SECONDS:
            end, place = max(end, self._ends[place]), place + 1
        self._begins[first:place], self._ends[first:place] = [begin], [end]
        if len(self._begins) > MOST_SPELLS:
            del self._begins[0], self._ends[0]

    @property
    def last_began_at(self) -> float | None:
        """Return since when the newest spell has lasted; None before the first heartbeat."""
        return self._begins[-1] if self._begins else None

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """Return the blind spells between them: from the last heartbeat before each to the first after it."""
        return list(zip(self._ends[:-1], self._begins[1:], strict=True))
