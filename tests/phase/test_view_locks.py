"""No list waits for the turn, nor, before it, for the target; and each list is of one snapshot."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api.main import create_app
from shared.settings import Settings
from tests.api.clients import started
from tests.api.unhurried import take_time
from tests.legacy_rows import set_collection
from tests.phase.moving import TURN, different, listed, move, move_back
from tests.phase.moving import viewed as viewed  # noqa: PLC0414 - a fixture
from tests.phase.scenes import Stage
from tests.processes import HANG_SECONDS
from tests.race.freezing import SPACE

NOT_GRANTED = """
    SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE datname = current_database() AND NOT granted AND locktype = $1
"""
# Its snapshot is taken before it waits; then it looks at the view and at `collections`.
WAIT_AND_COMPARE = f"""
    WITH waited AS MATERIALIZED (SELECT 'p1' || pg_advisory_lock_shared({SPACE}, 1)::text AS project)
    SELECT
        (SELECT array_agg(research_context ORDER BY collection_id)
        FROM waited CROSS JOIN LATERAL collections_of_project(waited.project)) AS listed,
        (SELECT array_agg(description ORDER BY collection_id)
        FROM collections WHERE is_active AND project_id = 'p1') AS legacy
"""  # noqa: S608 - a constant


@pytest.fixture
async def client(
    settings: Settings, viewed: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    del viewed
    take_time(monkeypatch.setattr)
    async with started(create_app(settings.model_copy(update={"shadow_share": 0.0}))) as client:
        yield client


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def over_http(client: httpx.AsyncClient) -> list[str]:
    answer = await client.get("/projects/p1/collections", headers={"User-ID": "owner"})
    assert answer.status_code == 200, answer.text
    return [item["description"] for item in answer.json()]


async def until_waiting(sql: asyncpg.Connection, kind: str) -> None:
    """Wait until a session waits for a lock of this kind."""
    async with asyncio.timeout(HANG_SECONDS):
        while not await sql.fetchval(NOT_GRANTED, kind):
            await asyncio.sleep(0.002)


async def test_a_target_that_is_locked_before_the_turn_holds_up_no_list(
    client: httpx.AsyncClient, engine: AsyncEngine, viewed: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    await Stage(engine, viewed).settled("text")
    await over_http(client)
    async with other.transaction():
        await other.execute("LOCK project_collections, outbox_events, outbox_dead_letters, applied_versions")
        await viewed.execute("SET lock_timeout = '1ms'; DISCARD PLANS")
        assert await listed_or_why(viewed) == {"p1": [("c", "text")]}
        assert await over_http(client) == ["text"]


async def listed_or_why(sql: asyncpg.Connection) -> object:
    try:
        return await listed(sql)
    except asyncpg.LockNotAvailableError as error:
        return str(error)


async def test_a_target_that_is_locked_after_the_turn_is_waited_for(
    client: httpx.AsyncClient, engine: AsyncEngine, viewed: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    await Stage(engine, viewed).settled("text")
    await move(viewed)
    async with other.transaction():
        await other.execute("LOCK project_collections")
        asking = asyncio.create_task(over_http(client))
        await until_waiting(viewed, "relation")
    assert await asking == ["text"]


@pytest.mark.parametrize("turn", [move, move_back])
async def test_no_list_waits_for_a_turn_and_one_that_is_not_committed_turns_nothing(
    turn: object,
    client: httpx.AsyncClient,
    engine: AsyncEngine,
    viewed: asyncpg.Connection,
    other: asyncpg.Connection,
) -> None:
    stage = Stage(engine, viewed)
    await stage.settled("text")
    await viewed.execute("UPDATE project_collections SET research_context = 'of the target'")
    shown = ["text", "of the target"]
    if turn is move_back:
        await move(viewed)
        shown.reverse()
    before, after = shown
    await viewed.execute("SET lock_timeout = '1ms'")
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT FROM migration_phase WHERE singleton FOR UPDATE")
    assert await listed_or_why(viewed) == {"p1": [("c", before)]}
    assert await over_http(client) == [before]
    await other.execute(TURN, "reads_moved" if turn is move else "shadow_reads")
    assert await listed_or_why(viewed) == {"p1": [("c", before)]}
    assert await over_http(client) == [before]
    await transaction.commit()
    assert await listed_or_why(viewed) == {"p1": [("c", after)]}
    assert await over_http(client) == [after]


@pytest.mark.parametrize("is_moved", [False, True])
async def test_a_list_is_of_the_snapshot_of_its_statement_whatever_is_committed_meanwhile(
    is_moved: bool,  # noqa: FBT001
    engine: AsyncEngine,
    viewed: asyncpg.Connection,
    other: asyncpg.Connection,
) -> None:
    stage = Stage(engine, viewed)
    await stage.settled("at first")
    if is_moved:
        await move(viewed)
    await viewed.execute("SELECT pg_advisory_lock($1, 1)", SPACE)
    asking = asyncio.create_task(other.fetchrow(WAIT_AND_COMPARE))
    await until_waiting(viewed, "advisory")
    await stage.settled("meanwhile")
    await set_collection(engine, "new", "new")
    await (move_back if is_moved else move)(viewed)
    await viewed.execute("SELECT pg_advisory_unlock($1, 1)", SPACE)
    row = await asking
    assert (row["listed"], row["legacy"]) == (["at first"], ["at first"])
    assert await different(viewed) == []
