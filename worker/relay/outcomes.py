"""What became of an event. Every claimed event gets exactly one outcome; all but one are final."""

from dataclasses import dataclass, field
from enum import StrEnum

from shared.postgres.faults import Said


class Outcome(StrEnum):
    """What a batch did with an event."""

    APPLIED = "applied"
    STALE = "stale"  # the guard had seen a newer version of the collection
    CONFLATED = "conflated"  # a newer event of the collection came in the same batch
    OBSOLETE = "obsolete"  # its project or collection is gone, or the legacy table belies it
    DEAD = "dead"  # it can never be applied; kept in outbox_dead_letters
    POSTPONED = "postponed"  # could not be applied now, and nothing shows it is at fault; stays pending


@dataclass(frozen=True, slots=True)
class Settlement:
    """An event's outcome; where it could not be applied, PostgreSQL's code and a reason without values.

    said: PostgreSQL's own words, for the letter alone.
    """

    outcome: Outcome
    sqlstate: str | None = None
    error: str | None = None
    said: Said = field(default=Said(), repr=False)

    @property
    def is_final(self) -> bool:
        """Whether the event is done with, so that it leaves the outbox."""
        return self.outcome is not Outcome.POSTPONED
