"""A rollback among others who are at work: refused, kept apart, interrupted, killed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared import backfill_runs
from shared.backfill_runs import BackfillOptions
from tests.draining import drain, run_once
from tests.drift import drained, drift
from tests.legacy_rows import set_collection
from tests.processes import HANG_SECONDS, environment, running_worker
from tests.race import freezing
from tests.rollback.situations import (
    MAKE_MANY,
    guarded,
    ignore,
    ours,
    planned,
    rolled_back,
    shown,
    switched_on_again,
    waits,
)
from worker.rollback import walk
from worker.rollback.busy import RollbackBusyError
from worker.rollback.run import plan, roll_back
from worker.rollback.statements import JUDGE_ROWS, PREPARE, REMOVE_ROWS
from worker.rollback.tally import Rollback
from worker.rollback.walk import CHUNK_ROWS, RollbackInterruptedError

BEFORE_REMOVAL = "target: before rows retire"
STATUSES = "SELECT array_agg(status ORDER BY id) FROM backfill_runs"


async def until_it_waits(sql: asyncpg.Connection, statement: str) -> None:
    """Wait until a statement that matches waits for a lock."""
    async with asyncio.timeout(HANG_SECONDS):
        while not await waits(sql, statement):
            await asyncio.sleep(0.01)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "CHUNK_ROWS", 2)


@contextlib.asynccontextmanager
async def under_way(engine: AsyncEngine) -> AsyncIterator[asyncio.Task[Rollback]]:
    """Start a rollback; the test waits for its end itself."""
    task = asyncio.create_task(rolled_back(engine))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_it_is_refused_while_a_worker_is_connected_and_nothing_is_changed(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str, redis_url: str
) -> None:
    async with running_worker(environment(database_url, redis_url)) as worker:
        await set_collection(engine, "one")
        await worker.wait_for("event_settled")
        before = await ours(sql)
        with pytest.raises(RollbackBusyError, match=r"worker is connected .* Stop the workers first"):
            await rolled_back(engine)
        assert await ours(sql) == before
        assert (await planned(engine)).removed == 1
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            with contextlib.suppress(RollbackBusyError):  # until PostgreSQL has noticed that it is gone
                done = await rolled_back(engine)
                break
            await asyncio.sleep(0.05)
    assert done.removed == 1


async def test_it_is_refused_while_a_backfill_is_running_but_not_for_one_that_nobody_drives(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    async with engine.begin() as connection:
        run = await backfill_runs.start(connection, BackfillOptions())
    await sql.execute("UPDATE backfill_runs SET heartbeat_at = clock_timestamp() + interval '1 hour'")
    with pytest.raises(RollbackBusyError, match=f"Backfill {run.id} is running"):
        await rolled_back(engine)
    await sql.execute("UPDATE backfill_runs SET heartbeat_at = clock_timestamp() - interval '1 minute'")
    await rolled_back(engine)
    assert await sql.fetchval(STATUSES) == ["cancelled"]


async def test_no_backfill_counts_any_more_once_its_rows_are_gone(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    for status in ("finished", "paused"):
        async with engine.begin() as connection:
            await backfill_runs.start(connection, BackfillOptions())
        await sql.execute("UPDATE backfill_runs SET status = $1 WHERE status = 'running'", status)
    await planned(engine)
    assert await sql.fetchval(STATUSES) == ["finished", "paused"]
    await rolled_back(engine)
    assert await sql.fetchval(STATUSES) == ["cancelled", "cancelled"]
    async with engine.begin() as connection:
        assert (await backfill_runs.start(connection, BackfillOptions())).status == "running"


@pytest.mark.usefixtures("small_chunks")
async def test_a_worker_that_is_started_in_the_middle_is_found_before_the_next_chunk(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str, redis_url: str
) -> None:
    await freezing.install(sql)
    for key in ("a", "b", "c", "d", "e"):
        await set_collection(engine, key)
    await drain(engine)
    async with contextlib.AsyncExitStack() as stack:
        rolling_back = await stack.enter_async_context(under_way(engine))
        async with freezing.frozen(sql, BEFORE_REMOVAL):
            await freezing.arrived(sql, BEFORE_REMOVAL)
            await set_collection(engine, "b", "a live write")
            await stack.enter_async_context(running_worker(environment(database_url, redis_url)))
            await until_it_waits(sql, "INSERT INTO applied_versions")
        with pytest.raises(RollbackBusyError, match="worker is connected"):
            await rolling_back
        await drained(sql)
    assert await guarded(sql) == [key for key, _ in await shown(sql)] == ["b", "c", "d", "e"]
    await switched_on_again(engine, sql)
    assert await drift(sql) == []


async def test_a_batch_that_stands_between_its_guard_and_its_row_is_waited_for(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await freezing.install(sql)
    await set_collection(engine, "one")
    async with freezing.frozen(sql, "target: before rows are written"):
        batch = asyncio.create_task(run_once(engine))
        await freezing.arrived(sql, "target: before rows are written")
        async with under_way(engine) as rolling_back:
            await until_it_waits(sql, "LOCK TABLE applied_versions")
            await sql.execute("SELECT pg_advisory_unlock_all()")
            done = await rolling_back
    await batch
    assert (done.removed, await shown(sql), await guarded(sql)) == (1, [], [])


async def test_what_somebody_adds_at_this_moment_stays(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    for key in ("one", "two"):
        await set_collection(engine, key)
    await drain(engine)
    async with under_way(engine) as rolling_back:
        async with sql.transaction():
            await sql.execute("UPDATE project_collections SET tags = '[1]' WHERE collection_id = 'one'")
            async with engine.connect() as other:
                raw = (await other.get_raw_connection()).driver_connection
                assert isinstance(raw, asyncpg.Connection)
                await until_it_waits(raw, "DELETE FROM project_collections")
        done = await rolling_back
    assert (done.removed, done.kept_enriched) == (1, 1)
    assert await guarded(sql) == ["one"]


async def test_the_api_reads_versions_and_writes_events_while_rows_are_removed(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await freezing.install(sql)
    await set_collection(engine, "one")
    await drain(engine)
    async with under_way(engine) as rolling_back:
        async with freezing.frozen(sql, BEFORE_REMOVAL):
            await freezing.arrived(sql, BEFORE_REMOVAL)
            async with asyncio.timeout(HANG_SECONDS):
                event_id = await set_collection(engine, "one", "meanwhile")
                assert await guarded(sql) == ["one"]
        assert (await rolling_back).discarded_events == 0
    assert await sql.fetchval("SELECT id FROM outbox_events") == event_id


@pytest.mark.usefixtures("small_chunks")
async def test_a_signal_ends_it_between_two_chunks_and_another_run_goes_on(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute(MAKE_MANY, 5)
    interrupted = asyncio.Event()

    def interrupt(done: Rollback) -> None:
        if done.removed == 2:
            interrupted.set()

    with pytest.raises(RollbackInterruptedError, match="after 2 rows were removed"):
        await roll_back(engine, interrupted=interrupted, watch=interrupt)
    assert len(await shown(sql)) == len(await guarded(sql)) == 3
    assert (await rolled_back(engine)).removed == 3
    with pytest.raises(RollbackInterruptedError):
        await plan(engine, interrupted=interrupted, watch=ignore)


async def test_a_chunk_of_a_large_table_reads_nothing_but_its_own_rows(sql: asyncpg.Connection) -> None:
    await sql.execute(MAKE_MANY, 30_000)
    await sql.execute("ANALYZE")
    bounds = {":after_id": "10000", ":upto_id": str(10_000 + CHUNK_ROWS)}
    async with sql.transaction():
        await sql.execute(PREPARE.text)
        for statement in (REMOVE_ROWS.text, JUDGE_ROWS.text):
            ready = statement
            for name, value in bounds.items():
                ready = ready.replace(name, value)
            plan = "\n".join(row[0] for row in await sql.fetch(f"EXPLAIN {ready}"))
            assert "Seq Scan" not in plan, plan
            assert "Index Cond: ((id > 10000) AND (id <= 12000))" in plan, plan
