"""What a check says: whether anything stands in the way, in a sentence, with what cures it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

MOST_SHOWN = 5  # of objections of one kind; the others are counted


class Severity(IntEnum):
    """How bad it is: `stop` makes a promise untrue or keeps a process from working."""

    OK = 0
    WARN = 1
    STOP = 2

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Objection:
    """One thing that is not as it should be; the fix is a command or SQL, None where there is none."""

    state: Severity
    sentence: str
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a look found: a sentence for the case that there is no objection, and the objections."""

    fine: str
    objections: Sequence[Objection] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Check:
    """A check that was made, or that could not be: then it is no better than `warn`."""

    name: str
    state: Severity
    sentence: str
    fix: str | None = None

    def as_json(self) -> dict[str, str | None]:
        return {"name": self.name, "state": self.state.word, "sentence": self.sentence, "fix": self.fix}


def warn(sentence: str, fix: str | None = None) -> Objection:
    return Objection(Severity.WARN, sentence, fix)


def stop(sentence: str, fix: str | None = None) -> Objection:
    return Objection(Severity.STOP, sentence, fix)


def each(rows: Iterable[Any], objection: Callable[[Any], Objection]) -> list[Objection]:
    return [objection(row) for row in rows]


def judged(name: str, found: Found) -> Check:
    """Make a check of what was found: the worst first, and of many the first few."""
    worst_first = sorted(found.objections, key=lambda objection: -objection.state)
    if not worst_first:
        return Check(name, Severity.OK, found.fine)
    shown = worst_first[:MOST_SHOWN]
    sentences = [objection.sentence for objection in shown]
    if more := len(worst_first) - len(shown):
        sentences.append(f"And {more} more.")
    fixes = dict.fromkeys(objection.fix for objection in shown if objection.fix)
    return Check(name, worst_first[0].state, " ".join(sentences), "\n".join(fixes) or None)


def not_looked(name: str, why: str) -> Check:
    """Make the check of what could not be looked at: nothing is known, so nothing is fine."""
    return Check(name, Severity.WARN, f"could not look: {why}")
