"""A batch: what one transaction did."""

from dataclasses import dataclass, field

from worker.relay.claim import ClaimedEvent
from worker.relay.outcomes import Settlement


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction did: the events it claimed, a settlement for each by id, its duration in seconds.

    `claim_seconds` is the part of the duration that the claim took, which never waits for a lock. `is_full`
    is true when it held as many events as it may: there may be more. `superseded` are the dead letters that
    newer ones closed. `final` are the events that are done with, all but the postponed; computed once, since
    several readers ask for each event.
    """

    events: list[ClaimedEvent] = field(default_factory=list)
    settlements: dict[int, Settlement] = field(default_factory=dict)
    duration_seconds: float = 0.0
    claim_seconds: float = 0.0
    is_full: bool = False
    superseded: list[int] = field(default_factory=list)
    final: list[ClaimedEvent] = field(init=False)

    def __post_init__(self) -> None:
        final = [event for event in self.events if self.settlements[event.id].is_final]
        object.__setattr__(self, "final", final)

    @property
    def had_faults(self) -> bool:
        """Whether PostgreSQL refused any of the events: the next batch may well have such events too."""
        return any(settlement.sqlstate is not None for settlement in self.settlements.values())

    def lag_ms(self, event: ClaimedEvent) -> float:
        """Return the milliseconds from the event's append to the end of this batch."""
        return event.age_ms + self.duration_seconds * 1000
