"""Events of versions that this release does not know, as a later release would append and apply them."""

import json

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.lanes import lanes_up_to
from tests.draining import run_once
from worker.relay.claim import Lanes
from worker.relay.outcomes import Outcome

# The state is the collection's own, as the later release would have it, with one more field.
APPEND = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload, schema_version)
    SELECT collection_id, CASE WHEN is_active THEN 'collection.updated' ELSE 'collection.deleted' END, $2,
        jsonb_build_object('project_id', project_id, 'research_context', description,
            'created_at', created_at, 'updated_at', updated_at) || $3::jsonb, $4
    FROM collections
    WHERE collection_id = $1
    RETURNING id
"""


async def append_later(
    sql: asyncpg.Connection,
    collection_id: str,
    *,
    version: int = 2,
    source: str = "api",
    **more: object,
) -> int:
    """Append the collection's state as an event of that version and return the event's id."""
    payload = json.dumps({"shelf": "north", **more})
    event_id: int = await sql.fetchval(APPEND, collection_id, source, payload, version)
    return event_id


async def settle_knowing(engine: AsyncEngine, version: int) -> dict[int, Outcome]:
    """Settle one batch as a worker does that knows all versions up to this one; return the outcomes."""
    lanes = lanes_up_to(version)
    batch = await run_once(engine, lanes=Lanes(min(lanes), max(lanes)))
    return {event_id: settlement.outcome for event_id, settlement in batch.settlements.items()}


async def waiting(sql: asyncpg.Connection) -> list[int]:
    """Return the ids of the events that are pending."""
    return [row["id"] for row in await sql.fetch("SELECT id FROM outbox_events ORDER BY id")]
