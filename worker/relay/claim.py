"""Claiming and acknowledging: what one batch takes out of the outbox, and how it leaves it."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import asyncpg

from shared.lanes import HIGHEST_KNOWN_LANE, LOWEST_KNOWN_LANE
from shared.projection import WELL_FORMED
from shared.traceparent import trace_id_of


class Lanes(NamedTuple):
    """A range of `outbox_events.lane`, both ends are meant: see `shared/lanes.py`."""

    first: int
    last: int


class Position(NamedTuple):
    """A place in the order in which events are claimed."""

    lane: int
    id: int


BEGINNING = Position(-(2**15), -(2**63))  # before every event
# All that this release knows. Events of later versions wait in lanes outside, and are not even walked over.
LIVE_LANE = Lanes(LOWEST_KNOWN_LANE, 0)
BULK_LANES = Lanes(1, HIGHEST_KNOWN_LANE)

# Whether the legacy row bears an event out is served by collections_pkey. A writer commits both together, so
# where a row has another home than its event says, or is active although it is said to be deleted, a writer
# wrote one of them alone, or a newer event is on its way. Where there is no row, the target's foreign key
# decides.
CLAIMED = f"""
    SELECT
        id,
        aggregate_id AS collection_id,
        payload ->> 'project_id' AS project_id,
        event_type,
        source,
        date_part('epoch', clock_timestamp() - created_at) * 1000 AS age_ms,
        (
            event_type IN ('collection.created', 'collection.updated', 'collection.deleted')
            AND jsonb_typeof(payload -> 'project_id') = 'string'
            AND {WELL_FORMED}
        ) IS TRUE AS well_formed,
        coalesce((
            SELECT project_id IS NOT DISTINCT FROM payload ->> 'project_id'
                AND NOT (is_active AND event_type = 'collection.deleted') IS TRUE
            FROM collections
            WHERE collections.collection_id = aggregate_id
            LIMIT 1
        ), true) AS is_borne_out,
        date_part('epoch', created_at) AS appended_at,
        attempts,
        lane,
        traceparent
    FROM claimed
    ORDER BY id
"""  # noqa: S608 - constants

# Served by outbox_events_claim_order. SKIP LOCKED makes it a queue: an event that commits late, or
# that another worker has in hand, is neither waited for nor passed over for good. The start is where
# the index is entered, see worker/relay/claim_start.py: the beginning of its lanes shuts nothing out.
CLAIM = f"""
    WITH claimed AS MATERIALIZED (
        SELECT * FROM outbox_events
        WHERE lane <= $2 AND (lane, id) > ($3, $4) AND id <> ALL($5)
        ORDER BY lane, id
        LIMIT $1
        FOR UPDATE SKIP LOCKED
    ) {CLAIMED}
"""  # noqa: S608 - made of constants

# Served by outbox_events_pkey.
CLAIM_THESE = f"""
    WITH claimed AS MATERIALIZED (
        SELECT * FROM outbox_events WHERE id = ANY($1) FOR UPDATE SKIP LOCKED
    ) {CLAIMED}
"""  # noqa: S608 - made of constants

# Served by outbox_events_pkey. Only what was claimed, by id: an event that came in between stays.
ACKNOWLEDGE = "DELETE FROM outbox_events WHERE id = ANY($1)"


class UnacknowledgedError(Exception):
    """The outbox gave back another number of rows than were claimed; the batch must not commit."""


class ClaimedEvent(NamedTuple):
    """One locked row of the outbox, without its payload: that never leaves the database.

    `age_ms` is the time from the event's append to its claim, by the database's clock.
    `well_formed` is false when the type is unknown or the payload has not the shape of an event.
    `is_borne_out` is false when the legacy table says otherwise: of its home, or that it is active.
    `appended_at` is when it was appended, in seconds since 1970 by the database's clock.
    `attempts` counts the marks that a cautious worker left on it, see `worker/relay/caution.py`.
    `traceparent` names the trace that it was written in, as W3C Trace Context does; None when there was none.
    """

    id: int
    collection_id: str
    project_id: str | None
    event_type: str
    source: str
    age_ms: float
    well_formed: bool
    is_borne_out: bool
    appended_at: float
    attempts: int
    lane: int
    traceparent: str | None = None

    @property
    def trace_id(self) -> str | None:
        """The trace that it was written in, 32 hexadecimal digits."""
        return None if self.traceparent is None else trace_id_of(self.traceparent)


async def claim(
    connection: asyncpg.Connection,
    limit: int,
    lanes: Lanes,
    start: Position,
    passing_over: Collection[int] = (),
) -> list[ClaimedEvent]:
    """Lock up to `limit` pending events that no other worker has in hand, lower lanes first; ordered by id.

    `passing_over` are ids of a few events to leave where they are.

    Only a claim from the beginning that got fewer than it may says that nothing is left: behind any
    other start an event may be missing that committed late, or that another worker gave back.
    """
    start = max(start, Position(lanes.first, BEGINNING.id))
    return list(
        map(ClaimedEvent._make, await connection.fetch(CLAIM, limit, lanes.last, *start, list(passing_over)))
    )


async def claim_these(connection: asyncpg.Connection, ids: Sequence[int]) -> list[ClaimedEvent]:
    """Lock those of these events that are pending and that no other worker has in hand; ordered by id."""
    return list(map(ClaimedEvent._make, await connection.fetch(CLAIM_THESE, ids)))


async def acknowledge(connection: asyncpg.Connection, events: Sequence[ClaimedEvent]) -> None:
    """Delete the claimed events in the transaction that settled them.

    Raises:
        UnacknowledgedError: some were gone although we held their locks.

    """
    status = await connection.execute(ACKNOWLEDGE, [event.id for event in events])
    if status != f"DELETE {len(events)}":
        raise UnacknowledgedError(f"claimed {len(events)} events, but the acknowledgement was: {status}")
