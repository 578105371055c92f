"""The loop that one would write by hand: no validation, no isolation of poison, no log, no wake-up.

    python -m benchmarks.minimal_loop

It applies batches of 500 behind the same version guard, each in one transaction, until it is terminated.
"""

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime

import asyncpg
import uvloop

from shared.settings import Settings, load_settings

BATCH = 500
POLL_SECONDS = 0.02

CLAIM = """
    SELECT id, aggregate_id, event_type, payload FROM outbox_events
    ORDER BY lane, id LIMIT $1 FOR UPDATE SKIP LOCKED
"""
GUARD = """
    INSERT INTO applied_versions AS guard (collection_id, version, project_id, is_deleted)
    SELECT *
    FROM unnest($1::text[], $2::bigint[], $3::text[], $4::boolean[]) AS event (key, id, home, is_deleted)
    ORDER BY key
    ON CONFLICT (collection_id) DO UPDATE SET
        version = excluded.version, project_id = excluded.project_id, is_deleted = excluded.is_deleted
    WHERE guard.version < excluded.version
    RETURNING version
"""
REMOVE = """
    DELETE FROM project_collections AS target USING unnest($1::text[], $2::text[]) AS event (home, key)
    WHERE target.project_id = event.home AND target.collection_id = event.key
"""
UPSERT = """
    INSERT INTO project_collections (project_id, collection_id, research_context, created_at, updated_at)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[])
    ON CONFLICT (project_id, collection_id) DO UPDATE SET research_context = excluded.research_context,
        created_at = excluded.created_at, updated_at = excluded.updated_at
"""
ACKNOWLEDGE = "DELETE FROM outbox_events WHERE id = ANY($1)"


async def apply(connection: asyncpg.Connection, events: Sequence[asyncpg.Record]) -> None:
    newest = {event["aggregate_id"]: event for event in events}.values()
    states = {event["id"]: (event, json.loads(event["payload"])) for event in newest}
    guarded = [
        (event["aggregate_id"], event["id"], state["project_id"], event["event_type"] == "collection.deleted")
        for event, state in states.values()
    ]
    passed = await connection.fetch(GUARD, *map(list, zip(*guarded, strict=True)))
    removed, kept = [], []
    for (version,) in passed:
        event, state = states[version]
        place = (state["project_id"], event["aggregate_id"])
        if event["event_type"] == "collection.deleted":
            removed.append(place)
        else:
            times = [datetime.fromisoformat(state[name]) for name in ("created_at", "updated_at")]
            kept.append((*place, state["research_context"], *times))
    if removed:
        await connection.execute(REMOVE, *map(list, zip(*removed, strict=True)))
    if kept:
        await connection.execute(UPSERT, *map(list, zip(*kept, strict=True)))


async def run_once(connection: asyncpg.Connection) -> int:
    """Claim, apply and acknowledge one batch; return how many events it had."""
    async with connection.transaction():
        events = await connection.fetch(CLAIM, BATCH)
        if events:
            await apply(connection, sorted(events))
            await connection.execute(ACKNOWLEDGE, [event["id"] for event in events])
    return len(events)


async def main() -> None:
    url = load_settings(Settings).database_url.get_secret_value().replace("+asyncpg", "")
    connection = await asyncpg.connect(url)
    print("ready", flush=True)
    while True:
        if not await run_once(connection):
            await asyncio.sleep(POLL_SECONDS)


if __name__ == "__main__":
    uvloop.run(main())
