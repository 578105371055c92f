"""Numbers over time: steps of four ranges, bounded whatever the length of the log and the order of lines."""

from dataclasses import dataclass, field

from worker.dashboard import lags
from worker.dashboard.lags import Counts
from worker.dashboard.page_state import LANES, Series

OUTCOMES = ("applied", "stale", "conflated", "obsolete", "dead")
FINEST_SECONDS = 5.0
RANGES = {"15m": (5.0, 180), "1h": (15.0, 240), "24h": (300.0, 288)}  # seconds of a step, steps
MOST_STEPS = 360  # of the range "all"

Percentiles = dict[str, float | None]


@dataclass(slots=True)
class Step:
    """What happened in one step, by lane; `pending` and `oldest_seconds` are the highest."""

    settled: dict[str, list[int]] = field(default_factory=dict)
    lag_counts: dict[str, Counts] = field(default_factory=dict)
    longest_ms: dict[str, float] = field(default_factory=dict)
    pending: dict[str, int] = field(default_factory=dict)
    oldest_seconds: dict[str, float] = field(default_factory=dict)
    written: int = 0
    percentiles: dict[str, Percentiles] = field(default_factory=dict)  # computed when they are asked for

    def settle(self, lane: str, outcomes: list[int], counts: Counts, longest_ms: float | None) -> None:
        """Add events by outcome, in the order of OUTCOMES, and their lags."""
        before = self.settled.get(lane)
        self.settled[lane] = (
            list(outcomes) if before is None else [a + b for a, b in zip(before, outcomes, strict=True)]
        )
        lags.add(self.lag_counts.setdefault(lane, {}), counts)
        if longest_ms is not None:
            self.longest_ms[lane] = max(longest_ms, self.longest_ms.get(lane, longest_ms))
        self.percentiles.pop(lane, None)

    def wait(self, lane: str, pending: int | None, oldest_seconds: float | None) -> None:
        """Take what waits, where it is more than what was known."""
        if pending is not None:
            self.pending[lane] = max(pending, self.pending.get(lane, 0))
        if oldest_seconds is not None:
            self.oldest_seconds[lane] = max(oldest_seconds, self.oldest_seconds.get(lane, 0.0))

    def merge(self, other: "Step") -> None:
        for lane, outcomes in other.settled.items():
            self.settle(lane, outcomes, other.lag_counts[lane], other.longest_ms.get(lane))
        for lane in LANES:
            self.wait(lane, other.pending.get(lane), other.oldest_seconds.get(lane))
        self.written += other.written

    def overall(self, lane: str) -> Percentiles:
        return {**self.lag_ms(lane), "max": self.longest_ms.get(lane)}

    def lag_ms(self, lane: str) -> Percentiles:
        if (known := self.percentiles.get(lane)) is None:
            known = self.percentiles[lane] = lags.percentiles(self.lag_counts.get(lane, {}))
        return known


class Ring:
    """The last steps of a fixed length; older ones are forgotten."""

    def __init__(self, step_seconds: float, length: int) -> None:
        self.step_seconds = step_seconds
        self.length = length
        self.steps: dict[int, Step] = {}

    def add(self, at: float, step: Step, now: float) -> None:
        """Add what happened at a time; `now` separates times from those that a wrong clock made up."""
        _merged(self.steps, int(at // self.step_seconds), step)
        if len(self.steps) > 2 * self.length:
            self._forget(now)

    def _forget(self, now: float) -> None:
        newest = min(max(self.steps), int(now // self.step_seconds))
        kept = sorted(index for index in self.steps if index > newest - self.length)
        self.steps = {index: self.steps[index] for index in kept[: 2 * self.length - 1]}

    def series(self, end: float) -> Series:
        last = int(end // self.step_seconds)
        return _series(self.steps, self.step_seconds, last - self.length + 1, last)


class Whole:
    """All of the log: when there are too many steps, they become twice as long."""

    def __init__(self) -> None:
        self.step_seconds = FINEST_SECONDS
        self.steps: dict[int, Step] = {}

    def add(self, at: float, step: Step) -> None:
        _merged(self.steps, int(at // self.step_seconds), step)
        while max(self.steps) - min(self.steps) >= MOST_STEPS:
            self._double()

    def _double(self) -> None:
        self.step_seconds *= 2
        before, self.steps = self.steps, {}
        for index, step in before.items():
            _merged(self.steps, index // 2, step)

    def series(self) -> Series:
        if not self.steps:
            return _series({}, self.step_seconds, 0, 0)
        return _series(self.steps, self.step_seconds, min(self.steps), max(self.steps))


class Timeline:
    """All ranges. What happens within the finest step is gathered first: that is quicker by far."""

    def __init__(self) -> None:
        self.rings = {name: Ring(*size) for name, size in RANGES.items()}
        self.whole = Whole()
        self._index = 0
        self._gathered: Step | None = None

    def at(self, at: float, now: float) -> Step:
        """Return the step to which to add what happened at a time, before the next call."""
        index = int(at // FINEST_SECONDS)
        if self._gathered is None or index != self._index:
            self._hand_over(now)
            self._index, self._gathered = index, Step()
        return self._gathered

    def _hand_over(self, now: float) -> None:
        if self._gathered is not None:
            at = self._index * FINEST_SECONDS
            for ring in self.rings.values():
                ring.add(at, self._gathered, now)
            self.whole.add(at, self._gathered)
            self._gathered = None

    def series(self, end: float, now: float) -> dict[str, Series]:
        """Return the columns of all ranges, by name; all but "all" end at `end`."""
        self._hand_over(now)
        return {**{name: ring.series(end) for name, ring in self.rings.items()}, "all": self.whole.series()}


def _merged(steps: dict[int, Step], index: int, step: Step) -> None:
    steps.setdefault(index, Step()).merge(step)


def _series(steps: dict[int, Step], step_seconds: float, first: int, last: int) -> Series:
    within = [index for index in steps if first <= index <= last]
    indexes = range(min(within), last + 1) if within else range(0)
    nothing, together = Step(), Step()
    for index in within:
        together.merge(steps[index])
    chosen = [steps.get(index, nothing) for index in indexes]
    return Series(
        step_seconds=step_seconds,
        times=[index * step_seconds for index in indexes],
        settled={
            lane: {
                outcome: [step.settled[lane][place] if lane in step.settled else 0 for step in chosen]
                for place, outcome in enumerate(OUTCOMES)
            }
            for lane in LANES
        },
        lag_ms={
            lane: {name: [step.lag_ms(lane)[name] for step in chosen] for name in lags.PERCENTILES}
            for lane in LANES
        },
        lag_count={lane: [sum(step.lag_counts.get(lane, {}).values()) for step in chosen] for lane in LANES},
        lag_overall={lane: together.overall(lane) for lane in LANES},
        pending={lane: [step.pending.get(lane) for step in chosen] for lane in LANES},
        oldest_seconds={lane: [step.oldest_seconds.get(lane) for step in chosen] for lane in LANES},
        written=[step.written for step in chosen],
    )
