"""How many events a batch takes, and what becomes of one that takes too long all by itself."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from shared.postgres.faults import QUERY_CANCELED
from worker.relay.batch import Batch
from worker.relay.claim import ClaimedEvent
from worker.relay.outcomes import Outcome, Settlement

EASY_SECONDS = 5.0  # a batch that took no longer may be followed by one twice as large
TOO_LONG_SECONDS = 20.0  # what is cancelled sooner was cancelled by an operator, not for its time
TRIES = 3
REST_SECONDS = 60.0  # between them, times their number: the others of its lanes wait meanwhile

TAKES_TOO_LONG = Settlement(
    Outcome.DEAD, QUERY_CANCELED, f"canceled {TRIES} times for its time, with no other event in its batch"
)


@dataclass(frozen=True, slots=True)
class Slow:
    """An event that took too long alone: how often, and when to try it again, by the monotonic clock."""

    times: int
    due_at: float


class BatchSize:
    """Halves what the next batch takes when one was cancelled for its time, down to one event.

    So something is settled in every pass. An event that takes too long alone is passed over, tried again
    after a while, and in the end given up.
    """

    def __init__(self, most: int) -> None:
        self._most = self._size = most
        self._slow: dict[int, Slow] = {}

    @property
    def size(self) -> int:
        """How many events to claim."""
        return self._size

    @property
    def passed_over(self) -> Collection[int]:
        """The ids of events that took too long alone."""
        return self._slow.keys()

    def due(self) -> int | None:
        """Return the id of an event that took too long alone and may be tried again, or None."""
        now = time.monotonic()
        return next((event_id for event_id, slow in self._slow.items() if slow.due_at <= now), None)

    def is_hopeless(self, event_id: int) -> bool:
        """Return whether the event took too long as often as it may."""
        return self._slow[event_id].times >= TRIES

    def note(self, batch: Batch) -> None:
        """Double the next batch, if this one was settled easily."""
        if batch.events and batch.duration_seconds < EASY_SECONDS:
            self._size = min(2 * self._size, self._most)

    def forget(self, event_id: int) -> None:
        """Forget an event that is settled, or gone."""
        self._slow.pop(event_id, None)

    def note_too_long(self, in_hand: Sequence[ClaimedEvent], seconds: float) -> None:
        """Halve the next batch after one that was cancelled, or count it against its only event."""
        if len(in_hand) > 1:
            self._size = len(in_hand) // 2
        elif in_hand and seconds >= TOO_LONG_SECONDS:
            event_id = in_hand[0].id
            times = 1 + (self._slow[event_id].times if event_id in self._slow else 0)
            self._slow[event_id] = Slow(times, time.monotonic() + REST_SECONDS * times)
