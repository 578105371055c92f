"""Appending to the outbox: the one way by which anything reaches `project_collections`."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.events import EventType, Source

# Served by collections_pkey. The projection is read back from the row itself, inside the
# transaction that wrote it, so the event holds exactly what the database holds.
APPEND_EVENT = text("""
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, :event_type, :source, jsonb_build_object(
        'project_id', project_id,
        'research_context', description,
        'created_at', created_at,
        'updated_at', updated_at
    )
    FROM collections
    WHERE collection_id = :collection_id
    RETURNING id
""")


async def append_event(
    connection: AsyncConnection, collection_id: str, event_type: EventType, source: Source
) -> int:
    """Append the collection's present state and return the event's id, which is its version.

    The caller must have written or locked the collection's row in this transaction before: then,
    for each collection, the order of ids is the order of commits.

    Raises:
        sqlalchemy.exc.NoResultFound: there is no such collection.

    """
    appended = await connection.execute(
        APPEND_EVENT, {"collection_id": collection_id, "event_type": event_type, "source": source}
    )
    event_id: int = appended.scalar_one()
    return event_id
