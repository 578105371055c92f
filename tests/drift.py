"""Whether the target shows exactly what the legacy table holds."""

import asyncio

import asyncpg

from shared.projection import legacy_names_of, names_of
from tests.processes import HANG_SECONDS

# Exact, on one snapshot: the projection of every active collection against its home row.
DRIFT = f"""
    SELECT coalesce(legacy.collection_id, target.collection_id) AS collection_id,
        legacy.description, target.research_context
    FROM (SELECT * FROM collections WHERE is_active) AS legacy
    FULL JOIN project_collections AS target
        ON target.collection_id = legacy.collection_id AND target.project_id = legacy.project_id
    WHERE (legacy.collection_id, {legacy_names_of("legacy")})
        IS DISTINCT FROM (target.collection_id, {names_of("target")})
"""  # noqa: S608 - constants


async def drift(connection: asyncpg.Connection) -> list[str]:
    """Return the collections that are missing, orphaned or different; meaningful once all is drained."""
    return [row["collection_id"] for row in await connection.fetch(DRIFT)]


async def drained(connection: asyncpg.Connection, seconds: float = HANG_SECONDS) -> None:
    """Wait until every event is settled; none may have died on the way."""
    async with asyncio.timeout(seconds):
        while await connection.fetchval("SELECT count(*) FROM outbox_events"):
            await asyncio.sleep(0.01)
    assert await connection.fetchval("SELECT count(*) FROM outbox_dead_letters") == 0
