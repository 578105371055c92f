"""Figures: what was measured, each beside its limit as a ratio."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Beside:
    """Another figure of the same case that this one is put beside, and what the ratio must be.

    The ratio is the median of those of the pairs: both figures have a sample of each repeat, taken in turns,
    so that what the machine is busy with meanwhile meets both.
    """

    figure: str
    at_least: float = -math.inf
    at_most: float = math.inf


@dataclass(frozen=True)
class Figure:
    """One thing that was measured once in each repeat.

    `at_least` and `at_most` are targets of the median itself; those of ratios are in `beside`. Where the same
    was measured at several sizes, `curve` names what, and `rows` is the size: the figure is a point of it.
    """

    name: str
    unit: str
    samples: Sequence[float]
    beside: Sequence[Beside] = ()
    at_least: float = -math.inf
    at_most: float = math.inf
    curve: str = ""
    rows: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.samples)


@dataclass(frozen=True)
class Verdict:
    """What a target asks for, and what was measured."""

    target: str
    measured: float
    is_met: bool


@dataclass(frozen=True)
class Measured:
    """What a case measured, on what settings."""

    case: str
    figures: Sequence[Figure]
    settings: dict[str, object]
    seconds: float

    def ratio(self, figure: Figure, beside: Beside) -> float:
        """Return the median ratio of the pairs of samples."""
        return statistics.median(self.ratios(figure, beside))

    def ratios(self, figure: Figure, beside: Beside) -> list[float]:
        other = next(other for other in self.figures if other.name == beside.figure)
        return [mine / theirs for mine, theirs in zip(figure.samples, other.samples, strict=True)]

    def verdicts(self) -> Iterator[Verdict]:
        for figure in self.figures:
            yield from _verdicts(figure.name, figure.median, figure, figure.unit)
            for beside in figure.beside:
                yield from _verdicts(figure.name, self.ratio(figure, beside), beside, f"x {beside.figure}")

    def as_json(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "seconds": round(self.seconds, 1),
            "settings": self.settings,
            "figures": [
                {
                    "name": figure.name,
                    "unit": figure.unit,
                    "median": figure.median,
                    "samples": list(figure.samples),
                    "ratios": {
                        beside.figure: round(self.ratio(figure, beside), 4) for beside in figure.beside
                    },
                }
                | ({"curve": figure.curve, "rows": figure.rows} if figure.curve else {})
                for figure in self.figures
            ],
            "targets": [asdict(verdict) for verdict in self.verdicts()],
        }


def _verdicts(name: str, measured: float, bounds: Figure | Beside, of_what: str) -> Iterator[Verdict]:
    if bounds.at_least > -math.inf:
        target = f"{name} >= {bounds.at_least:g} {of_what}"
        yield Verdict(target, measured, measured >= bounds.at_least)
    if bounds.at_most < math.inf:
        target = f"{name} <= {bounds.at_most:g} {of_what}"
        yield Verdict(target, measured, measured <= bounds.at_most)
