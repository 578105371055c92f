"""A row whose trigger crashes the server is set aside after few crashes, by the worker as it ships."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from deploy.local.postgres import Postgres
from shared.events import Source
from tests.conftest import migrate
from tests.legacy_rows import seed
from tests.processes import HANG_SECONDS, environment, running_worker
from worker.relay.caution import LOST_CONNECTIONS, TOGETHER

# As a fault of PostgreSQL's own, or the kernel for want of memory, would end it.
CRASH = """
    CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.collection_id = 'lethal' THEN COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER crash BEFORE INSERT ON project_collections FOR EACH ROW EXECUTE FUNCTION crash();
"""
APPEND = """
    WITH written AS (
        INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
        SELECT CASE number WHEN {lethal} THEN 'lethal' ELSE '{name}' || number END, 'p1', 'c', 'owner', true
        FROM generate_series(1, {count}) AS number
        RETURNING collection_id
    )
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.created', '{source}', jsonb_build_object(
        'project_id', 'p1', 'research_context', NULL, 'created_at', NULL, 'updated_at', NULL)
    FROM written
"""
LEFT = "SELECT count(*) FROM outbox_events"
UNMARKED = LOST_CONNECTIONS + 1  # another drain may have begun before the doubt
CRASHES_AT_MOST = UNMARKED + len(TOGETHER)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Postgres]:
    with Postgres(tmp_path / "postgres", settings={"fsync": "off"}) as server:
        migrate(server.url)
        yield server


async def ask(server: Postgres, query: str) -> int | None:
    """Return the number that the query gives; None while the server recovers."""
    try:
        sql = await asyncpg.connect(server.url, timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return None
    try:
        return int(await sql.fetchval(query))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None
    finally:
        sql.terminate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lane", "other", "workers"),
    [
        pytest.param(Source.API, Source.BACKFILL, 1, marks=pytest.mark.wide),
        pytest.param(Source.BACKFILL, Source.API, 1, marks=pytest.mark.wide),
        pytest.param(Source.API, Source.BACKFILL, 2, marks=pytest.mark.long),
    ],
)
async def test_a_row_that_crashes_the_server_does_so_a_few_times_while_both_lanes_are_busy(
    lane: Source, other: Source, workers: int, own_server: Postgres, redis_url: str
) -> None:
    sql = await asyncpg.connect(own_server.url)
    await seed(sql)
    await sql.execute(CRASH)
    await sql.execute(APPEND.format(lethal=500, name="c", count=1_000, source=lane))
    await sql.execute(APPEND.format(lethal=0, name="other", count=1_000, source=other))
    await sql.close()
    env = environment(own_server.url, redis_url)
    async with AsyncExitStack() as stack, asyncio.timeout(HANG_SECONDS):
        for _ in range(workers):
            await stack.enter_async_context(running_worker(env))
        while await ask(own_server, LEFT) != 0:
            await asyncio.sleep(0.1)
    crashes = own_server.log.read_text().count("was terminated by signal 9")
    assert 0 < crashes <= CRASHES_AT_MOST + (workers - 1) * UNMARKED
    sql = await asyncpg.connect(own_server.url)
    letters = await sql.fetch("SELECT aggregate_id, attempts, sqlstate FROM outbox_dead_letters")
    assert [tuple(row) for row in letters] == [("lethal", len(TOGETHER), None)]
    assert await sql.fetchval("SELECT count(*) FROM project_collections") == 1_999
    await sql.close()
