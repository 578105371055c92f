"""Appending to the outbox: the one way by which anything reaches `project_collections`."""

from collections.abc import Sequence

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session

from shared.events import PAYLOAD_VERSION, EventType, Source
from shared.projection import LEGACY_NAMES, PAYLOAD
from shared.traceparent import current_traceparent

# Served by collections_pkey.
APPEND_EVENT = text(f"""
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload, traceparent, schema_version)
    SELECT collection_id, :event_type, :source, {PAYLOAD}, CAST(:traceparent AS text), {PAYLOAD_VERSION}
    FROM collections
    WHERE collection_id = :collection_id
    RETURNING id
""")  # noqa: S608 - a constant

# Served by collections_pkey. A row that a writer holds is waited for and then read as it was
# left. Each id is drawn after its row was locked, so the event is newer than any event whose state
# it could overwrite. What the row is at that moment decides, not what it was when it was chosen.
APPEND_STATES = text(f"""
    WITH locked AS MATERIALIZED (
        SELECT collection_id, project_id, is_active, {LEGACY_NAMES}
        FROM collections
        WHERE collection_id = ANY(CAST(:collection_ids AS varchar[]))
        ORDER BY collection_id
        FOR SHARE
    ), appended AS (
        INSERT INTO outbox_events (aggregate_id, event_type, source, payload, traceparent, schema_version)
        SELECT
            collection_id,
            CASE WHEN is_active THEN CAST(:event_type AS varchar) ELSE '{EventType.DELETED}' END,
            :source,
            {PAYLOAD},
            CAST(:traceparent AS text),
            {PAYLOAD_VERSION}
        FROM locked
        RETURNING aggregate_id, id
    )
    SELECT aggregate_id, id FROM appended
""")  # noqa: S608 - constants


async def append_event(
    connection: AsyncConnection, collection_id: str, event_type: EventType, source: Source
) -> int:
    """Append the collection's present state and return the event's id, which is its version.

    The caller must have written or locked the collection's row in this transaction before: then,
    for each collection, the order of ids is the order of commits. The event carries the trace that
    this code runs in, if any.

    Raises:
        sqlalchemy.exc.NoResultFound: there is no such collection.

    """
    appended = await connection.execute(APPEND_EVENT, _values(collection_id, event_type, source))
    event_id: int = appended.scalar_one()
    return event_id


def append_event_sync(
    connection: Connection | Session, collection_id: str, event_type: EventType, source: Source = Source.API
) -> int:
    """Append an event as `append_event` does, from code that does not await, with any driver.

    A session is flushed first: the row must be written, and so locked, before the id is drawn.

    Raises:
        sqlalchemy.exc.NoResultFound: there is no such collection.

    """
    if isinstance(connection, Session):
        connection.flush()
    event_id: int = connection.execute(APPEND_EVENT, _values(collection_id, event_type, source)).scalar_one()
    return event_id


def _values(collection_id: str, event_type: EventType, source: Source) -> dict[str, str | None]:
    return {
        "collection_id": collection_id,
        "event_type": event_type,
        "source": source,
        "traceparent": current_traceparent(),
    }


async def append_states(
    connection: AsyncConnection, collection_ids: Sequence[str], event_type: EventType, source: Source
) -> dict[str, int]:
    """Lock these collections and append the present state of each; for backfill and repair.

    The rows stay locked against writers, not against readers, until the transaction ends: keep it
    short. A collection that is not active gets a deletion.

    Args:
        connection: in a transaction of the caller's.
        collection_ids: those that do not exist any more are passed over.
        event_type: for those that are active: created or updated.
        source: backfill or repair.

    Returns:
        the id of the event of each collection.

    """
    appended = await connection.execute(
        APPEND_STATES,
        {
            "collection_ids": list(collection_ids),
            "event_type": event_type,
            "source": source,
            "traceparent": current_traceparent(),
        },
    )
    return {collection_id: event_id for collection_id, event_id in appended.all()}  # noqa: C416 - rows, not tuples
