"""Events of versions that this worker does not know: left alone, and reported until a later one has them."""

import math
import time

import structlog

from shared.events import NEWEST_KNOWN_VERSION
from shared.lanes import version_of

logger = structlog.get_logger(__name__)

REMIND_SECONDS = 60.0


class UnknownVersions:
    """Logs that such events wait: at once, again each minute, and when none waits any more."""

    def __init__(self) -> None:
        self._reported_at = -math.inf  # monotonic
        self._were_there = False

    def note(self, events: int, first_lane: int | None, last_lane: int | None) -> None:
        """Record a look at the outbox: how many there are, and the lanes farthest out that they wait in."""
        if not events:
            if self._were_there:
                logger.info("unknown_versions_settled", known_version=NEWEST_KNOWN_VERSION)
            self._were_there, self._reported_at = False, -math.inf
            return
        self._were_there = True
        if time.monotonic() - self._reported_at >= REMIND_SECONDS:
            self._reported_at = time.monotonic()
            newest = max(version_of(lane) for lane in (first_lane, last_lane) if lane is not None)
            logger.warning(
                "unknown_versions_wait",
                events=events,
                known_version=NEWEST_KNOWN_VERSION,
                newest_version=newest,
                hint=f"deploy a worker that knows version {newest} of events; nothing is lost meanwhile",
            )
