"""Where a claim begins: at the very beginning, or, while that is dear, behind what was just claimed."""

import math
import time
from collections.abc import Sequence
from operator import attrgetter

from worker.relay.claim import BEGINNING, ClaimedEvent, Position

PLACE = attrgetter("lane", "id")  # in the order in which events are claimed

# What a shortened claim still walks over, and at most twice of it: what was claimed so lately. So the
# usual late commit, milliseconds after its neighbours, is found at once.
TRAIL_EVENTS = 2_000
TRAIL_SECONDS = 2.0
DEAR_SECONDS = 0.001
# Claims from the beginning take at most a twentieth of a drain's time, or are too cheap to matter.
REST_PER_FULL_CLAIM = 20.0  # times its duration


class ClaimStart:
    """Spares a drain the walk over everything that was acknowledged since a snapshot was taken.

    As long as a snapshot is held, acknowledged events stay in the index and each claim from the
    beginning walks over all of them. Once that takes more than DEAR_SECONDS, claims begin where this
    drain was a moment ago. That is a hint and never a cursor: what it passes over, because it committed
    late or was in another worker's hands, is found by the next claim from the beginning. A drain may
    end with such a claim only.
    """

    def __init__(self) -> None:
        self._full_claim_at = -math.inf  # monotonic
        self._start = self._next_start = BEGINNING
        self._stepped_at = -math.inf
        self._claimed_since = 0

    def choose(self) -> Position:
        """Return the position behind which the next claim looks."""
        return BEGINNING if self.seconds_until_full_claim <= 0 else self._start

    @property
    def seconds_until_full_claim(self) -> float:
        """How long claims may still be shortened; zero or less when the next one may not."""
        return self._full_claim_at - time.monotonic()

    def note(self, start: Position, events: Sequence[ClaimedEvent], claim_seconds: float) -> None:
        """Record a batch that committed: where its claim began, what it got and how long it took."""
        now = time.monotonic()
        if start == BEGINNING:
            rest = REST_PER_FULL_CLAIM * claim_seconds if claim_seconds > DEAR_SECONDS else 0.0
            self._full_claim_at = now + rest
        newest = Position(*max(map(PLACE, events), default=BEGINNING))
        self._claimed_since += len(events)
        is_time = self._claimed_since >= TRAIL_EVENTS or now - self._stepped_at >= TRAIL_SECONDS
        if is_time and newest > self._next_start:
            self._start, self._next_start = self._next_start, newest
            self._stepped_at, self._claimed_since = now, 0

    def forget(self) -> None:
        """Claim from the beginning next: a batch failed, and what it had claimed is free again."""
        self._full_claim_at = -math.inf
