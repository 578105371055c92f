"""A batch: what one transaction did."""

from dataclasses import dataclass, field

from worker.relay.claim import ClaimedEvent
from worker.relay.outcomes import Verdict


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction did: the events it claimed, a verdict for each, its duration in seconds.

    `final` are those of the events that are done with: all but the postponed.

    `claim_seconds` is the part of it that the claim took, which never waits for a lock. `is_full` says
    that it held as many events as it may: there may be more.
    """

    events: list[ClaimedEvent] = field(default_factory=list)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    duration_seconds: float = 0.0
    claim_seconds: float = 0.0
    is_full: bool = False
    final: list[ClaimedEvent] = field(init=False)

    def __post_init__(self) -> None:
        """Find out once which events are done with: that is asked several times, of each event."""
        final = [event for event in self.events if self.verdicts[event.id].is_final]
        object.__setattr__(self, "final", final)

    @property
    def had_faults(self) -> bool:
        """Say whether PostgreSQL refused any of the events: the next batch may well have such as well."""
        return any(verdict.sqlstate is not None for verdict in self.verdicts.values())

    def lag_ms(self, event: ClaimedEvent) -> float:
        """Return the milliseconds from the event's append to the end of this batch."""
        return event.age_ms + self.duration_seconds * 1000
