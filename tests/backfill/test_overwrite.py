"""A chunk reads, then writes; a live write comes in between. The newer value must stay."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.events import EventType, Source
from shared.outbox import append_event
from shared.postgres.database import create_engine
from shared.settings import Settings
from tests.backfill.driving import COMMAND, chunk_of, current, started, take, until_waiting
from tests.backfill.rows import change_target, home_drift, insert_collection
from tests.draining import drain
from tests.race import freezing
from tests.race.storm import CHANGE, LOCK
from tests.twins.bulk import lock_no_rows

POINT = "backfill: read, before its events"


@pytest.fixture
async def backfill_engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """Known to the freeze points as a backfill's."""
    engine = create_engine(
        settings, application_name="collection-sync backfill", pool_size=2, statement_timeout_seconds=30
    )
    yield engine
    await engine.dispose()


@pytest.fixture(autouse=True)
async def _freezable(sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    await freezing.install_for_backfill(sql)
    monkeypatch.setattr("worker.backfill.find.LOCK_TIMEOUT", "0")  # or a wait would end by itself


async def write_live(engine: AsyncEngine, description: str, *, is_active: bool) -> None:
    """Write collection `c` as the API does: lock, change, append."""
    async with engine.begin() as connection:
        await connection.execute(LOCK, {"id": "c"})
        await connection.execute(CHANGE, {"id": "c", "description": description, "is_active": is_active})
        event_type = EventType.UPDATED if is_active else EventType.DELETED
        await append_event(connection, "c", event_type, Source.API)


async def chunk_with_a_write_between(
    engine: AsyncEngine, backfill_engine: AsyncEngine, sql: asyncpg.Connection, *, is_active: bool
) -> None:
    """Freeze a chunk between its read and its write, write live meanwhile, and drain everything."""
    run = await take(engine, await started(engine))
    async with freezing.frozen(sql, POINT):
        chunk = asyncio.create_task(chunk_of(backfill_engine, run))
        await freezing.arrived(sql, POINT)
        await write_live(engine, "newer", is_active=is_active)
    assert (await chunk).enqueued == 1
    events = await sql.fetch("SELECT source FROM outbox_events ORDER BY id")
    assert [row["source"] for row in events] == ["api", "backfill"]
    await drain(engine)


async def target(sql: asyncpg.Connection) -> list[str]:
    rows = await sql.fetch("SELECT research_context FROM project_collections WHERE collection_id = 'c'")
    return [row["research_context"] for row in rows]


@pytest.mark.parametrize("kind", ["missing", "mismatched"])
async def test_a_live_update_between_read_and_write_is_not_overwritten(
    kind: str, engine: AsyncEngine, backfill_engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_collection(sql, "c", *(["p1"] if kind == "mismatched" else []), description="old")
    await change_target(sql, "c", "research_context = 'differs'")
    await chunk_with_a_write_between(engine, backfill_engine, sql, is_active=True)
    assert await target(sql) == ["newer"]
    assert await home_drift(sql) == []


async def test_a_live_deletion_between_read_and_write_is_not_undone(
    engine: AsyncEngine, backfill_engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_collection(sql, "c", description="old")
    await chunk_with_a_write_between(engine, backfill_engine, sql, is_active=False)
    assert await target(sql) == []


async def test_an_orphan_that_was_brought_back_between_read_and_write_stays(
    engine: AsyncEngine, backfill_engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_collection(sql, "c", "p1", description="old", is_active=False)
    await chunk_with_a_write_between(engine, backfill_engine, sql, is_active=True)
    assert await target(sql) == ["newer"]


@pytest.mark.parametrize("is_active", [True, False])
async def test_the_twin_that_does_not_lock_the_rows_is_convicted(
    is_active: bool,  # noqa: FBT001 - pytest passes it by name
    engine: AsyncEngine,
    backfill_engine: AsyncEngine,
    sql: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock_no_rows(monkeypatch)
    await insert_collection(sql, "c", description="old")
    await chunk_with_a_write_between(engine, backfill_engine, sql, is_active=is_active)
    assert await target(sql) == ["old"]
    assert await home_drift(sql) == ["c"]


async def test_a_chunk_waits_for_a_write_that_is_not_committed_yet(
    engine: AsyncEngine, backfill_engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_collection(sql, "c", description="old")
    run = await take(engine, await started(engine))
    async with engine.begin() as connection:
        await connection.execute(LOCK, {"id": "c"})
        chunk = asyncio.create_task(chunk_of(backfill_engine, run))
        await until_waiting(sql, COMMAND)
        await connection.execute(CHANGE, {"id": "c", "description": "newer", "is_active": True})
        await append_event(connection, "c", EventType.UPDATED, Source.API)
    assert (await chunk).run.last_event_id == await sql.fetchval("SELECT max(id) FROM outbox_events")
    assert (await current(engine)).status == "finished"
    await drain(engine)
    assert await target(sql) == ["newer"]
