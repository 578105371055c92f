"""What was in sync before any event of it gets a guard, so that a move leaves no row behind."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.database import create_engine
from shared.settings import Settings
from tests.audit.pairs import audited
from tests.backfill.driving import COMMAND, backfilled, chunk_of, started, take, until_waiting
from tests.backfill.rows import home_drift, insert_collection, insert_mixed_rows
from tests.draining import drain, run_once
from tests.legacy_rows import set_collection
from tests.race import freezing

BETWEEN = "backfill: read, before its events"
INSERTED = "backfill: guards inserted"
MOVE = "UPDATE collections SET project_id = 'p2' WHERE collection_id = 'c'"
GUARDED = """
    SELECT guard.collection_id, guard.project_id FROM applied_versions AS guard
    WHERE version = 0 AND found_row AND NOT is_deleted AND previous_project_id IS NULL AND row_id = (
        SELECT id FROM project_collections AS target
        WHERE target.project_id = guard.project_id AND target.collection_id = guard.collection_id
    )
    ORDER BY 1
"""
GUARD = "SELECT version, project_id FROM applied_versions WHERE collection_id = 'c'"


async def projects_of(sql: asyncpg.Connection, collection_id: str = "c") -> list[str]:
    """Return the projects in which the target has a row of the collection."""
    rows = await sql.fetch(
        "SELECT project_id FROM project_collections WHERE collection_id = $1 ORDER BY 1", collection_id
    )
    return [row["project_id"] for row in rows]


async def test_what_is_in_sync_gets_a_guard_and_nothing_else_does(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_mixed_rows(sql)
    await backfilled(engine)
    in_sync = ["in sync", "in sync: linked elsewhere"]
    assert [tuple(row) for row in await sql.fetch(GUARDED)] == [(name, "p1") for name in in_sync]
    assert await sql.fetchval("SELECT count(*) FROM applied_versions") == len(in_sync)


@pytest.mark.parametrize("found_by", ["a backfill", "a repair", "its own event"])
async def test_what_was_in_sync_before_us_leaves_the_project_that_it_is_moved_from_and_no_other(
    found_by: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_collection(sql, "c", "p1", "p3")
    await backfilled(engine)
    if found_by == "its own event":
        await set_collection(engine, "c", project_id="p2")
    else:
        await sql.execute(MOVE)
    if found_by == "a backfill":
        await backfilled(engine)
    if found_by == "a repair":
        assert (await audited(engine, repair=True, patience_seconds=0)).missing == 1
    await drain(engine)
    assert await projects_of(sql) == ["p2", "p3"]
    assert await home_drift(sql) == []


async def test_a_deletion_of_what_was_in_sync_before_us_takes_its_home_row_and_no_link(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_collection(sql, "c", "p1", "p3")
    await backfilled(engine)
    await set_collection(engine, "c", is_active=False)
    await drain(engine)
    assert await projects_of(sql) == ["p3"]


@pytest.fixture
async def backfill_engine(
    settings: Settings, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AsyncEngine]:
    """Known to the freeze points as a backfill's, and of any patience."""
    await freezing.install_for_backfill(sql)
    monkeypatch.setattr("worker.backfill.find.LOCK_TIMEOUT", "0")
    engine = create_engine(
        settings, application_name="collection-sync backfill", pool_size=2, statement_timeout_seconds=30
    )
    yield engine
    await engine.dispose()


async def begun(engine: AsyncEngine, sql: asyncpg.Connection) -> "asyncio.Task[object]":
    """Let a chunk begin with `c`, which is in sync, and with another row, for which it appends an event."""
    await insert_collection(sql, "c", "p1")
    await insert_collection(sql, "missing")
    return asyncio.create_task(chunk_of(engine, await take(engine, await started(engine))))


@pytest.mark.parametrize("moved", ["by hand", "with its event"])
async def test_what_is_moved_between_the_read_and_the_guard_leaves_no_row_behind(
    moved: str, engine: AsyncEngine, backfill_engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    async with freezing.frozen(sql, BETWEEN):
        chunk = await begun(backfill_engine, sql)
        await freezing.arrived(sql, BETWEEN)
        if moved == "by hand":
            await sql.execute(MOVE)
        else:
            await set_collection(engine, "c", project_id="p2")
    await chunk
    await backfilled(engine)
    await drain(engine)
    assert await projects_of(sql) == ["p2"]


async def test_a_guard_that_an_event_left_between_the_read_and_the_guard_stays(
    engine: AsyncEngine, backfill_engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    async with freezing.frozen(sql, BETWEEN):
        chunk = await begun(backfill_engine, sql)
        await freezing.arrived(sql, BETWEEN)
        version = await set_collection(engine, "c", "newer", project_id="p2")
        await drain(engine)
    await chunk
    assert await sql.fetchrow(GUARD) == (version, "p2")


async def test_a_batch_waits_for_a_guard_that_is_not_committed_and_applies_its_event_after_it(
    engine: AsyncEngine, backfill_engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    async with freezing.frozen(sql, INSERTED):
        chunk = await begun(backfill_engine, sql)
        await freezing.arrived(sql, INSERTED)
        version = await set_collection(engine, "c", project_id="p2")
        batch = asyncio.create_task(run_once(engine))
        await freezing.until_blocked(sql)
    await asyncio.gather(chunk, batch)
    assert await sql.fetchrow(GUARD) == (version, "p2")
    assert await projects_of(sql) == ["p2"]


async def test_a_chunk_waits_for_a_guard_that_a_batch_has_in_hand_and_leaves_it(
    engine: AsyncEngine, backfill_engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    async with freezing.frozen(sql, BETWEEN):
        chunk = await begun(backfill_engine, sql)
        await freezing.arrived(sql, BETWEEN)
        version = await set_collection(engine, "c", "newer")
        holder = sql.transaction()
        await holder.start()
        await sql.execute("INSERT INTO applied_versions VALUES ('c', $1, 'p1', NULL, false)", version)
    await until_waiting(sql, COMMAND)
    await holder.commit()
    await chunk
    assert await sql.fetchrow(GUARD) == (version, "p1")
