"""What became of an event. Every claimed event gets exactly one outcome."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """The end of one event's road."""

    APPLIED = "applied"
    STALE = "stale"  # the guard had seen a newer version of the collection
    CONFLATED = "conflated"  # a newer event of the collection came in the same batch
    OBSOLETE = "obsolete"  # its project or collection does not exist any more
    DEAD = "dead"  # it can never be applied; kept in outbox_dead_letters


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome and, for an event that could not be applied, PostgreSQL's code and the reason."""

    outcome: Outcome
    sqlstate: str | None = None
    error: str | None = None
