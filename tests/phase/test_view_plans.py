"""Whatever was known when its plans were made, a list reads its own rows by indexes, and nobody else's."""

import json
from collections.abc import AsyncIterator

import asyncpg
import psycopg
import pytest

from shared.phase.phases import Phase
from tests.engines import COUNTS_AT_ONCE
from tests.phase.moving import TURN
from tests.phase.moving import viewed as viewed  # noqa: PLC0414 - a fixture

PROJECTS, COLLECTIONS = 2_000, 20_000
LISTED = 1_000
ASKED = 10  # times: more than the planner tries before it keeps a plan
# p1's are listed: settled, and each sixth linked to it from elsewhere, or with another text in the target.
FILL = f"""
    INSERT INTO projects (project_id, project_name, owner_user_id)
    SELECT 'p' || n, 'name', 'owner' FROM generate_series(4, {PROJECTS}) AS n;
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    SELECT 'c' || n, CASE WHEN n <= {LISTED} THEN 'p1' ELSE 'p' || 4 + n % ({PROJECTS} - 4) END, 'name',
        'text', 'owner', true
    FROM generate_series(1, {COLLECTIONS}) AS n;
    INSERT INTO project_collections (project_id, collection_id, research_context)
    SELECT project_id, collection_id, CASE WHEN collection_id LIKE '%7' THEN 'other' ELSE description END
    FROM collections;
    INSERT INTO project_collections (project_id, collection_id, research_context)
    SELECT 'p1', collection_id, 'linked' FROM collections
    WHERE project_id <> 'p1' AND collection_id LIKE '%77';
    INSERT INTO applied_versions (collection_id, version, project_id, is_deleted)
    SELECT collection_id, 1, project_id, false FROM collections;
"""  # noqa: S608 - numbers
LINKED = COLLECTIONS // 100 - LISTED // 100
WAITING = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT 'other' || n, 'collection.updated', 'api', '{}' FROM generate_series(1, 100000) AS n;
    INSERT INTO outbox_dead_letters (id, aggregate_id, event_type, source, payload, created_at, error)
    SELECT -n, 'other' || n, 'collection.updated', 'api', '{}', now(), 'error'
    FROM generate_series(1, 20000) AS n
"""
SCANS = """
    SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE relname IN ('projects', 'collections',
        'project_collections', 'outbox_events', 'outbox_dead_letters', 'applied_versions', 'migration_phase')
"""
READ = "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes"
READ_OF_WAITING = f"{READ} WHERE relname IN ('outbox_events', 'outbox_dead_letters')"
FLUSH = "SELECT pg_stat_force_next_flush()"
LIST = "SELECT * FROM visible_collections WHERE project_id = {}"
PHASES = (Phase.LEGACY_ONLY, Phase.READS_MOVED)


class Reader:
    """A session of another program, with nothing set, that asks again and again."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def begin(self) -> None:
        self._connection = await asyncpg.connect(self._url)

    async def ask(self) -> int:
        return len(await self._connection.fetch(LIST.format("$1"), "p1"))

    async def tell(self) -> None:
        """Let the counts of what was scanned arrive."""
        await self._connection.execute(FLUSH)

    async def end(self) -> None:
        await self._connection.close()


class PsycopgReader(Reader):
    async def begin(self) -> None:
        self._psycopg = await psycopg.AsyncConnection.connect(self._url, autocommit=True)

    async def ask(self) -> int:
        cursor = await self._psycopg.execute(LIST.format("%s"), ("p1",))
        return len(await cursor.fetchall())

    async def tell(self) -> None:
        await self._psycopg.execute(FLUSH)

    async def end(self) -> None:
        await self._psycopg.close()


@pytest.fixture(params=[Reader, PsycopgReader])
async def reader(
    request: pytest.FixtureRequest, database_url: str, viewed: asyncpg.Connection
) -> AsyncIterator[Reader]:
    del viewed
    reader: Reader = request.param(database_url)
    await reader.begin()
    yield reader
    await reader.end()


async def scanned(reader: Reader, sql: asyncpg.Connection) -> int:
    """Return how many scans of whole tables there were."""
    await reader.tell()
    await sql.execute(FLUSH)
    count: int = await sql.fetchval(SCANS)
    return count


@COUNTS_AT_ONCE
@pytest.mark.parametrize("phase", PHASES)
async def test_plans_that_were_made_while_all_was_empty_scan_no_table_when_it_is_long(
    phase: Phase, reader: Reader, viewed: asyncpg.Connection
) -> None:
    for turned in PHASES:
        await viewed.execute(TURN, turned)
        for _ in range(ASKED):
            assert await reader.ask() == 0
    await viewed.execute(TURN, phase)
    await viewed.execute(FILL)
    await viewed.execute(WAITING)
    shown = LISTED + (LINKED if phase is Phase.READS_MOVED else 0)
    scans, read = await scanned(reader, viewed), await viewed.fetchval(READ)
    for _ in range(ASKED):
        assert await reader.ask() == shown
    assert await scanned(reader, viewed) == scans
    # Of each that is shown its row, its row in the target twice, and of a link its row by its key.
    assert await viewed.fetchval(READ) - read <= ASKED * shown * 5


@COUNTS_AT_ONCE
async def test_a_plan_that_a_pooled_connection_keeps_serves_the_side_that_is_right(
    reader: Reader, viewed: asyncpg.Connection
) -> None:
    await viewed.execute(FILL)
    await viewed.execute("ANALYZE")
    for phase in (*PHASES, *PHASES):
        await viewed.execute(TURN, phase)
        scans = await scanned(reader, viewed)
        for _ in range(ASKED):
            assert await reader.ask() == LISTED + (LINKED if phase is Phase.READS_MOVED else 0)
        assert await scanned(reader, viewed) == scans


@pytest.fixture
async def asks(database_url: str, viewed: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    await viewed.execute(FILL)
    await viewed.execute("VACUUM ANALYZE")
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def buffers(sql: asyncpg.Connection) -> int:
    """Return how many pages a list of p1 touches, its plans once made."""
    explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT json) " + LIST.format("'p1'")
    for _ in range(3):
        ((plan,),) = await sql.fetch(explain)
    root = json.loads(plan)[0]["Plan"]
    return int(root["Shared Hit Blocks"]) + int(root["Shared Read Blocks"])


@COUNTS_AT_ONCE
@pytest.mark.parametrize("phase", PHASES)
async def test_what_waits_for_others_costs_a_list_nothing(
    phase: Phase, viewed: asyncpg.Connection, asks: asyncpg.Connection
) -> None:
    """Of what is alike in both tables nothing is looked up; of the rest two entries of an index at most."""
    await viewed.execute(TURN, phase)
    before = await buffers(asks)
    await viewed.execute(WAITING)
    await viewed.execute("VACUUM ANALYZE outbox_events, outbox_dead_letters")
    looked_up = LISTED // 10 + LINKED if phase is Phase.READS_MOVED else 0
    depth = 3 * 2  # pages from an index's root to a leaf, of either table
    assert await buffers(asks) <= before + looked_up * depth
    await asks.execute(FLUSH)
    read = await viewed.fetchval(READ_OF_WAITING)
    await asks.fetch(LIST.format("'p1'"))
    await asks.execute(FLUSH)
    assert (
        await viewed.fetchval(READ_OF_WAITING) - read <= 2
    )  # for homes and links: is any letter open at all
