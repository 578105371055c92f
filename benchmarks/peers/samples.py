"""What was measured of all systems, repeat by repeat, as figures beside the best peer of each repeat."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.bench import require
from benchmarks.figures import Beside, Figure
from benchmarks.peers.environments import Unmeasured

BEST = "best peer"


@dataclass(frozen=True)
class Measure:
    """What is measured of every system, and what the first must be beside the best peer of a repeat."""

    name: str
    unit: str
    best: Callable[[Iterable[float]], float] | None = None
    at_least: float = -math.inf
    at_most: float = math.inf

    def figures(self, taken: Mapping[str, Sequence[float]], peers: Mapping[str, bool]) -> Iterator[Figure]:
        """Yield a figure for each system, and one for the best peer, which the first system is put beside.

        Raises:
            LocalError: there is no peer to be put beside.

        """
        beside = []
        if self.best is not None:
            of_peers = [samples for system, samples in taken.items() if peers[system]]
            require(of_peers, f"{self.name} could be measured of a peer")
            best = [self.best(repeat) for repeat in zip(*of_peers, strict=True)]
            yield Figure(f"{self.name}: {BEST}", self.unit, best)
            beside = [Beside(f"{self.name}: {BEST}", self.at_least, self.at_most)]
        for system, samples in taken.items():
            is_judged = system == next(iter(peers))
            yield Figure(f"{self.name}: {system}", self.unit, samples, beside if is_judged else ())


@dataclass(frozen=True)
class Samples:
    """What was measured of which system, and of whom something could not be measured, and why.

    Attributes:
        peers: for each system, whether it is a peer, in the order of the figures.
        say: called at once for each that is absent.

    """

    peers: Mapping[str, bool]
    say: Callable[[str], None]
    absent: dict[str, str] = field(default_factory=dict)
    _taken: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def is_absent(self, *what: str) -> bool:
        """Return whether it was tried in vain: a system, or one of its measures."""
        return ", ".join(what) in self.absent

    def take(self, system: str, measures: Mapping[str, float]) -> None:
        for measure, value in measures.items():
            self._taken[measure, system].append(value)

    def leave_out(self, *what: str, why: Unmeasured) -> None:
        self.absent[", ".join(what)] = str(why)
        self.say(f"ABSENT: {', '.join(what)}: {why}")

    def figures(self, measures: Iterable[Measure], repeats: int) -> Iterator[Figure]:
        """Yield the figures of everything that was measured in every repeat, and count what was not.

        Raises:
            LocalError: there is no peer to be put beside.

        """
        for measure in measures:
            of_all = {system: self._taken[measure.name, system] for system in self.peers}
            complete = {system: samples for system, samples in of_all.items() if len(samples) == repeats}
            yield from measure.figures(complete, self.peers)
        yield Figure("absent: systems, or measures of them", "", [len(self.absent)], at_most=0)
