"""Which lane an event waits in, and which lanes a worker claims from.

`outbox_events.lane` is computed from an event's source and version. A worker claims two ranges of lanes, and
those of versions that it does not know lie outside of both, so that they cost its claims nothing:

    ... | live v3 | live v2 | live v1 | repair v1 | backfill v1 | repair v2 | backfill v2 | ...
          -2        -1        0         1           2             3           4
"""

from collections.abc import Mapping

from shared.events import NEWEST_KNOWN_VERSION, PAYLOAD_VERSION, Source

NAMES: Mapping[Source, str] = {Source.API: "live", Source.REPAIR: "repair", Source.BACKFILL: "backfill"}


def lane_of(source: Source, version: int) -> int:
    """Return the lane that PostgreSQL computes for such an event."""
    match source:
        case Source.API | Source.CAPTURE:
            return 1 - version
        case Source.REPAIR:
            return 2 * version - 1
        case Source.BACKFILL:
            return 2 * version


def version_of(lane: int) -> int:
    """Return the version of the events in that lane."""
    return 1 - lane if lane <= 0 else (lane + 1) // 2


def lanes_up_to(version: int) -> dict[int, str]:
    """Return the names of the lanes of all versions up to this one, in the order of claims."""
    lanes = {
        lane_of(source, known): name for known in range(1, version + 1) for source, name in NAMES.items()
    }
    return dict(sorted(lanes.items()))


KNOWN_LANES: Mapping[int, str] = lanes_up_to(NEWEST_KNOWN_VERSION)
LOWEST_KNOWN_LANE, HIGHEST_KNOWN_LANE = min(KNOWN_LANES), max(KNOWN_LANES)
BACKFILL_LANE = lane_of(Source.BACKFILL, PAYLOAD_VERSION)  # of the events that this release appends
