"""Events as no writer of ours would append them, and what a batch makes of them."""

import json
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.draining import run_once
from worker.relay.outcomes import Outcome


async def append_raw(
    sql: asyncpg.Connection, collection_id: str, event_type: str = "collection.updated", **payload: object
) -> int:
    """Append an event by hand, as no writer of ours would."""
    whole = {"project_id": "p1", "research_context": "raw", "created_at": None, "updated_at": None} | payload
    event_id: int = await sql.fetchval(
        "INSERT INTO outbox_events (aggregate_id, event_type, source, payload)"
        " VALUES ($1, $2, 'api', $3) RETURNING id",
        collection_id,
        event_type,
        json.dumps({name: value for name, value in whole.items() if value != "absent"}),
    )
    return event_id


async def append_again(sql: asyncpg.Connection, event_id: int, payload: dict[str, Any]) -> None:
    """Append an old event with its old id, as if it had been delivered twice."""
    await sql.execute(
        "INSERT INTO outbox_events (id, aggregate_id, event_type, source, payload, created_at)"
        " OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, 'api', $4, $5)",
        event_id,
        payload["aggregate_id"],
        payload["event_type"],
        payload["payload"],
        payload["created_at"],
    )


async def outcomes(engine: AsyncEngine) -> dict[int, Outcome]:
    """Settle one batch and return each event's outcome."""
    batch = await run_once(engine)
    return {event_id: settlement.outcome for event_id, settlement in batch.settlements.items()}
