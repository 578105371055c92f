"""Facts that meet the gates, written as our processes write them."""

import asyncio

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.status.scenes import in_sync
from worker.capture.change import change

LONG_AGO = "UPDATE migration_phase SET since = since - interval '2 days'"
COMPARE = """
    INSERT INTO shadow_counts (epoch, minute, matched, legacy_seconds, target_seconds, last_at)
    SELECT epoch, date_trunc('minute', clock_timestamp()), 1000, 0.5, 0.75, clock_timestamp()
    FROM migration_phase
"""
COUNT_LOSSES = """
    INSERT INTO going_back_losses (took_seconds, further_links, tags, mappings, contexts, without_home)
    VALUES (0.1, 12, 3, 0, 1, 0)
"""
FIND = """
    INSERT INTO shadow_findings (project_id, collection_id, kind, epoch)
    SELECT $1, $2, 'mismatched', epoch FROM migration_phase
"""
PHASE = "SELECT phase, epoch FROM migration_phase"


async def meet_gates(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    """Fulfil all that depends on no phase: a worker lives, writers are captured, both tables are equal."""
    await in_sync(engine, sql)
    await change(engine, "append", interrupted=asyncio.Event(), watch=lambda _: None)
