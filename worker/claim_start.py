"""Where a claim begins: at the very beginning, or, while that is dear, behind what was just claimed."""

import math
import time
from collections.abc import Sequence

from worker.claim import BEGINNING, ClaimedEvent, Position

TRAIL_EVENTS = 2_000  # claimed ones that a shortened claim still walks over, and at most twice as many
DEAR_SECONDS = 0.005
# Claims from the beginning take at most a twentieth of a drain's time, or are too cheap to matter.
REST_PER_FULL_CLAIM = 20.0  # times its duration


class ClaimStart:
    """Spares a drain the walk over everything that was acknowledged since somebody took a snapshot.

    As long as a snapshot is held, acknowledged events stay in the index and each claim from the
    beginning walks over all of them. Once that takes more than DEAR_SECONDS, claims begin some
    thousands of events behind the newest that this drain claimed. That is a hint and never a cursor:
    what it passes over, because it committed late or was in another worker's hands, is found by the
    next claim from the beginning. A drain may end with such a claim only.
    """

    def __init__(self) -> None:
        """Begin at the beginning."""
        self._full_claim_at = -math.inf  # monotonic
        self._start = self._next_start = BEGINNING
        self._claimed_since = 0

    def choose(self) -> Position:
        """Return the position behind which the next claim looks."""
        return BEGINNING if self.seconds_until_full_claim <= 0 else self._start

    @property
    def seconds_until_full_claim(self) -> float:
        """How long claims may still be shortened; zero or less when the next one may not."""
        return self._full_claim_at - time.monotonic()

    def note(self, start: Position, events: Sequence[ClaimedEvent], claim_seconds: float) -> None:
        """Take note of a batch that committed: where its claim began, what it got and how long it took."""
        if start == BEGINNING:
            rest = REST_PER_FULL_CLAIM * claim_seconds if claim_seconds > DEAR_SECONDS else 0.0
            self._full_claim_at = time.monotonic() + rest
        newest = max((event.position for event in events), default=BEGINNING)
        self._claimed_since += len(events)
        if self._claimed_since >= TRAIL_EVENTS and newest > self._next_start:
            self._start, self._next_start = self._next_start, newest
            self._claimed_since = 0

    def forget(self) -> None:
        """Claim from the beginning next: a batch failed, and nobody knows what it had in hand."""
        self._full_claim_at = -math.inf
