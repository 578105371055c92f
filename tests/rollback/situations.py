"""Databases in the middle of phase 1, and what a rollback may and may not change in them."""

import asyncio
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.events import EventType, Source
from shared.outbox import append_states
from tests.draining import drain
from worker.rollback.run import plan, roll_back
from worker.rollback.tally import Rollback

# With the system columns: not even a lock of a row leaves them as they were.
LEGACY = "SELECT xmin::text, xmax::text, ctid::text, c::text FROM collections AS c ORDER BY ctid"
OURS = """
    SELECT (SELECT json_agg(t ORDER BY id) FROM project_collections AS t)::text AS target,
        (SELECT json_agg(t ORDER BY collection_id) FROM applied_versions AS t)::text AS guard,
        (SELECT json_agg(t ORDER BY id) FROM outbox_events AS t)::text AS outbox,
        (SELECT json_agg(t ORDER BY id) FROM backfill_runs AS t)::text AS backfills
"""
MAKE_MANY = """
    WITH written AS (
        INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
        SELECT 'c' || lpad(number::text, 6, '0'), 'p1', 'name', 'owner', true
        FROM generate_series(1, $1::integer) AS number
        RETURNING *
    ), shown AS (
        INSERT INTO project_collections (project_id, collection_id, research_context, created_at, updated_at)
        SELECT project_id, collection_id, description, created_at, updated_at FROM written
        ORDER BY collection_id
    )
    INSERT INTO applied_versions (collection_id, version, project_id, is_deleted)
    SELECT collection_id, nextval('outbox_events_id_seq'), project_id, false FROM written
"""
LINK = (
    "INSERT INTO project_collections (project_id, collection_id, research_context) VALUES ($1, $2, 'theirs')"
)


WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query ~ $1
"""


async def waits(connection: asyncpg.Connection, statement: str) -> bool:
    """Say whether a statement that matches waits for a lock."""
    return bool(await connection.fetchval(WAITING, statement))


async def legacy(connection: asyncpg.Connection) -> list[Any]:
    """Return every byte of the legacy table, its system columns included."""
    return [tuple(row) for row in await connection.fetch(LEGACY)]


async def ours(connection: asyncpg.Connection) -> dict[str, str | None]:
    """Return all that a rollback may change."""
    return dict(await connection.fetchrow(OURS))


async def shown(connection: asyncpg.Connection) -> list[tuple[str, str]]:
    """Return the rows of the target as (collection, project), in order."""
    rows = await connection.fetch(
        "SELECT collection_id, project_id FROM project_collections ORDER BY collection_id, project_id"
    )
    return [tuple(row) for row in rows]


async def guarded(connection: asyncpg.Connection) -> list[str]:
    """Return the collections that have a guard, in order."""
    rows = await connection.fetch("SELECT collection_id FROM applied_versions ORDER BY collection_id")
    return [row["collection_id"] for row in rows]


def ignore(_rollback: Rollback) -> None:
    """Watch nothing."""


async def rolled_back(engine: AsyncEngine) -> Rollback:
    return await roll_back(engine, interrupted=asyncio.Event(), watch=ignore)


async def planned(engine: AsyncEngine) -> Rollback:
    return await plan(engine, interrupted=asyncio.Event(), watch=ignore)


async def switched_on_again(engine: AsyncEngine, connection: asyncpg.Connection) -> None:
    """Append the state of every collection as a backfill does, and apply all."""
    rows = await connection.fetch("SELECT collection_id FROM collections")
    keys = [row["collection_id"] for row in rows]
    async with engine.begin() as appending:
        await append_states(appending, keys, EventType.CREATED, Source.BACKFILL)
    await drain(engine)
