"""Backlogs, and what drains them: the worker's own parts on their own sessions, or the hand-written loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from benchmarks import minimal_loop
from shared.settings import Settings
from tests.processes import HANG_SECONDS
from worker.main import arq_settings, stop

Append = Callable[[asyncpg.Connection, int], Awaitable[None]]

ROWS = """
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    SELECT md5('row ' || number)::uuid::text, 'bulk-' || number % 200, '', 'What row ' || number || ' says',
        'bulk', true
    FROM generate_series(1, $1::integer) AS number
"""
AS_A_BACKFILL = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.updated', 'backfill', jsonb_build_object('project_id', project_id,
        'research_context', description, 'created_at', created_at, 'updated_at', updated_at)
    FROM collections
    ORDER BY collection_id
"""
SESSIONS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'collection-sync%'
"""


async def append_backfill(sql: asyncpg.Connection, events: int) -> None:
    """Commit so many events of a backfill, each of a collection of its own."""
    async with sql.transaction():
        await sql.execute(ROWS, events)
        await sql.execute(AS_A_BACKFILL)


@asynccontextmanager
async def worker_parts(settings: Settings) -> AsyncIterator[dict[str, Any]]:
    """Yield what the worker's jobs work with; in the end all of it is stopped, as in a worker."""
    ctx = arq_settings(settings)["ctx"]
    try:
        yield ctx
    finally:
        await stop(ctx)


async def drain(settings: Settings) -> None:
    """Settle everything that is pending as a worker does that was just started, and end it."""
    async with worker_parts(settings) as ctx:
        await ctx["drainer"].drain("sweep")


async def drain_by_hand(settings: Settings) -> None:
    """Do the same by the loop that one would write by hand."""
    url = settings.database_url.get_secret_value().replace("+asyncpg", "")
    connection = await asyncpg.connect(url)
    try:
        while await minimal_loop.run_once(connection):
            pass
    finally:
        await connection.close()


async def sessions_ended(sql: asyncpg.Connection) -> None:
    """Wait until the worker's sessions are gone: PostgreSQL counts what they did when they end."""
    async with asyncio.timeout(HANG_SECONDS):
        while await sql.fetchval(SESSIONS):
            await asyncio.sleep(0.01)
    await sql.execute("SELECT pg_stat_clear_snapshot()")
