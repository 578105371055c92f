"""The reads moved and back by hand, and what lists then show, by SQL."""

from collections import defaultdict

import asyncpg
import pytest

from shared.phase import view
from shared.phase.phases import Phase
from shared.place import PLACE, Place
from tests.legacy_rows import seed

TURN = "UPDATE migration_phase SET phase = $1, epoch = epoch + 1, since = clock_timestamp(), actor = 'test'"
LISTED = "SELECT project_id, collection_id, research_context FROM visible_collections ORDER BY 1, 2, 3"
# On one snapshot: what the view shows of each collection's home against its row.
DIFFERENT = """
    SELECT legacy.collection_id AS legacy, listed.collection_id AS listed,
        legacy.description, listed.research_context
    FROM (SELECT * FROM collections WHERE is_active) AS legacy
    FULL JOIN (
        SELECT listed.* FROM visible_collections AS listed
        WHERE listed.collection_id <> ALL ($1::text[])
    ) AS listed USING (project_id, collection_id)
    WHERE (legacy.collection_id IS NULL OR listed.collection_id IS NULL
            OR legacy.description IS DISTINCT FROM listed.research_context)
        AND coalesce(legacy.collection_id, '') <> ALL ($1::text[])
"""

Lists = dict[str, list[tuple[str, str | None]]]  # by project: each collection and its context


@pytest.fixture
async def viewed(sql: asyncpg.Connection) -> asyncpg.Connection:
    """A user with three projects, and the view as this checkout has it, or as a twin of it is."""
    await seed(sql)
    await sql.execute(view.function(Place(*await sql.fetchrow(PLACE))))
    return sql


async def move(sql: asyncpg.Connection) -> None:
    await sql.execute(TURN, Phase.READS_MOVED)


async def move_back(sql: asyncpg.Connection) -> None:
    await sql.execute(TURN, Phase.SHADOW_READS)


async def listed(sql: asyncpg.Connection) -> Lists:
    """Return what the view shows; projects without a collection are left out."""
    lists: Lists = defaultdict(list)
    for project_id, collection_id, context in await sql.fetch(LISTED):
        lists[project_id].append((collection_id, context))
    return dict(lists)


async def different(sql: asyncpg.Connection, *linked: str) -> list[tuple[str | None, ...]]:
    """Return where the view and `collections` differ at this moment, but for collections that are linked."""
    return [tuple(row) for row in await sql.fetch(DIFFERENT, list(linked))]
