import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from structlog.testing import capture_logs

from shared.events import Source
from shared.postgres.advice import LACKS_TABLES
from shared.postgres.database import driver_connection
from shared.redis.client import open_redis
from shared.settings import Settings
from tests.databases import Databases
from tests.draining import run_once
from tests.engines import COUNTS_AT_ONCE
from tests.legacy_rows import set_collection, target_rows
from tests.processes import HANG_SECONDS
from tests.race import freezing
from worker.drainer import POLITE_BATCH, REST_PER_BATCH, Drainer
from worker.main import arq_settings, drain_outbox, stop
from worker.relay.batch import Batch
from worker.relay.claim import LIVE_LANE, Lanes, Position

AFTER_CLAIM = "guard: claimed, before the guard"


async def test_a_call_during_a_drain_makes_it_look_once_more(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    drainer = Drainer(engine)
    await freezing.install(sql)
    await set_collection(engine, "c1")
    async with freezing.frozen(sql, AFTER_CLAIM):
        draining = asyncio.create_task(drainer.drain("doorbell"))
        await freezing.arrived(sql, AFTER_CLAIM)
        drainer.wake("sweep")
        await set_collection(engine, "c2")
        assert not draining.done()
    await draining
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0


async def test_stop_lets_the_batch_in_hand_finish_and_begins_no_other(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.drainer.LIVE_BATCH", 1)
    drainer = Drainer(engine)
    await freezing.install(sql)
    for number in range(3):
        await set_collection(engine, f"c{number}")
    async with freezing.frozen(sql, AFTER_CLAIM):
        draining = asyncio.create_task(drainer.drain("doorbell"))
        await freezing.arrived(sql, AFTER_CLAIM)
        stopping = asyncio.create_task(drainer.stop())
        await asyncio.sleep(0)
        assert not stopping.done()
    await asyncio.gather(draining, stopping)
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 2


async def test_a_drain_goes_on_when_the_job_that_woke_it_ends(
    settings: Settings, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    """An arq job has a timeout; a drain of a large backlog has none."""
    ctx = arq_settings(settings)["ctx"]
    await freezing.install(sql)
    await set_collection(engine, "c1")
    async with (
        open_redis(settings.redis_url.get_secret_value()) as redis,
        freezing.frozen(sql, AFTER_CLAIM),
    ):
        await asyncio.wait_for(drain_outbox({**ctx, "redis": redis}), timeout=HANG_SECONDS)
        await freezing.arrived(sql, AFTER_CLAIM)
    await stop(ctx)
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0


async def test_a_live_write_does_not_wait_for_a_bulk_batch_in_hand(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "bulk", "before")
    drainer = Drainer(engine)
    await drainer.drain("sweep")
    await set_collection(engine, "bulk", "after", source=Source.BACKFILL)
    async with sql.transaction():
        await sql.execute("SELECT 1 FROM applied_versions FOR UPDATE")  # the bulk batch stops here
        drainer.wake("sweep")
        await freezing.until_blocked(sql)
        await set_collection(engine, "live", "now")
        drainer.wake("doorbell")
        await asyncio.wait_for(drainer.live_settled(), HANG_SECONDS)
        assert [row["research_context"] for row in await target_rows(sql, "live")] == ["now"]
        assert [row["research_context"] for row in await target_rows(sql, "bulk")] == ["before"]
    await drainer.drain("sweep")
    assert [row["research_context"] for row in await target_rows(sql, "bulk")] == ["after"]


@pytest.mark.parametrize(("users_write", "batches"), [(False, [250]), (True, [100, 100, 50])])
async def test_bulk_takes_short_batches_while_users_write(
    *, users_write: bool, batches: list[int], engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.drainer.LIVE_LATELY_SECONDS", float("inf"))
    if not users_write:
        monkeypatch.setattr("worker.drainer.BULK_DRAINS", 1)  # two may share a batch between them
    drainer = Drainer(engine)
    if users_write:
        await set_collection(engine, "live")
        await drainer.drain("doorbell")
    for number in range(250):
        await set_collection(engine, f"c{number}", source=Source.BACKFILL)
    with capture_logs() as lines:
        await drainer.drain("sweep")
    assert [line["claimed"] for line in lines if line["event"] == "batch_settled"] == batches


def with_sleep(sleep: Callable[[float], Awaitable[None]]) -> ModuleType:
    """Return asyncio with another `sleep`."""
    module = ModuleType("asyncio")
    vars(module).update(vars(asyncio) | {"sleep": sleep})
    return module


@pytest.mark.parametrize(("users_write", "at_once"), [(False, 2), (True, 1)])
async def test_while_users_write_one_bulk_drain_works_and_rests_after_each_batch(
    *, users_write: bool, at_once: int, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way = most = 0
    happened: list[float | str] = []

    async def watched(
        engine: AsyncEngine,
        batch_size: int,
        lanes: Lanes,
        start: Position,
        **how: Any,  # noqa: ANN401
    ) -> Batch:
        nonlocal under_way, most
        if lanes == LIVE_LANE:
            return await run_once(engine, batch_size, lanes, start, **how)
        under_way += 1
        most = max(most, under_way)
        happened.append("begun")
        batch = await run_once(engine, batch_size, lanes, start, **how)
        happened.append(batch.duration_seconds)
        under_way -= 1
        return batch

    async def rest(seconds: float) -> None:
        happened.append(f"rested for {seconds / REST_PER_BATCH}")

    monkeypatch.setattr("worker.drainer.run_once", watched)
    monkeypatch.setattr("worker.drainer.asyncio", with_sleep(rest))
    monkeypatch.setattr("worker.drainer.LIVE_LATELY_SECONDS", float("inf"))
    drainer = Drainer(engine)
    if users_write:
        await set_collection(engine, "live")
        await drainer.drain("doorbell")
        happened.clear()
        most = 0
    for number in range(POLITE_BATCH * 2):
        await set_collection(engine, f"c{number}", source=Source.BACKFILL)
    await drainer.drain("sweep")
    assert most == at_once
    if users_write:
        steps = zip(happened[::3], happened[1::3], happened[2::3], strict=True)
        assert len(happened) >= 3 * 2
        assert all((begun, rested) == ("begun", f"rested for {seconds}") for begun, seconds, rested in steps)


async def test_a_batch_that_does_not_end_is_rolled_back_when_the_process_must_stop(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.drainer.BATCH_PATIENCE_SECONDS", 0.2)
    drainer = Drainer(engine)
    await freezing.install(sql)
    await set_collection(engine, "c1")
    async with freezing.frozen(sql, AFTER_CLAIM):
        drainer.wake("sweep")
        await freezing.arrived(sql, AFTER_CLAIM)
        await asyncio.wait_for(drainer.stop(), HANG_SECONDS)
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 1


async def test_what_a_backfill_applied_gets_no_line_of_its_own_but_what_it_did_not_apply_does(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.drainer.BULK_DRAINS", 1)  # of two, one may have the newer, one the older
    await set_collection(engine, "live")
    await set_collection(engine, "bulk", source=Source.BACKFILL)
    await set_collection(engine, "twice", "older", source=Source.BACKFILL)
    await set_collection(engine, "twice", "newer", source=Source.BACKFILL)
    with capture_logs() as lines:
        await Drainer(engine).drain("sweep")
    settled = {(line["collection_id"], line["outcome"]) for line in lines if line["event"] == "event_settled"}
    assert settled == {("live", "applied"), ("twice", "conflated")}
    assert sum(line["applied"] for line in lines if line["event"] == "batch_settled") == 3


async def test_a_batch_that_fails_is_reported_and_tried_again_by_the_next_wake_up(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    drainer = Drainer(engine)
    await set_collection(engine, "c1")
    await sql.execute("ALTER TABLE project_collections RENAME TO away")
    with capture_logs() as lines:
        await drainer.drain("sweep")
        await sql.execute("ALTER TABLE away RENAME TO project_collections")
        await drainer.drain("sweep")
    assert Counter(line["event"] for line in lines) == {
        "batch_failed": 1,
        "batch_settled": 1,
        "event_settled": 1,
    }
    failed = next(line for line in lines if line["event"] == "batch_failed")
    assert (failed["log_level"], failed["transient"], failed["sqlstate"]) == ("error", False, "42P01")


async def test_on_a_database_without_our_tables_the_log_says_what_to_run(
    databases: Databases,
) -> None:
    url = databases.create_empty("never_migrated")
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    with capture_logs() as lines:
        await Drainer(engine).drain("sweep")
    await engine.dispose()
    assert {line["hint"] for line in lines} == {LACKS_TABLES}


SEQUENTIAL_SCANS = """
    SELECT sum(seq_tup_read) FROM pg_stat_user_tables
    WHERE relname IN ('outbox_events', 'applied_versions', 'project_collections')
"""
MANY_COLLECTIONS = """
    WITH made AS (
        INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
        SELECT 'many-' || number, 'p1', '', 'owner', true FROM generate_series(1, 3000) AS number
        RETURNING collection_id
    )
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.created', 'backfill', jsonb_build_object(
        'project_id', 'p1', 'research_context', NULL, 'created_at', NULL, 'updated_at', NULL)
    FROM made
"""


INDEX_PAGES_READ = """
    SELECT sum(idx_blks_hit + idx_blks_read) FROM pg_statio_user_indexes
    WHERE relname IN ('applied_versions', 'project_collections')
"""
MANY_HOMES = """
    INSERT INTO projects (project_id, project_name, owner_user_id)
    SELECT 'home-' || number, '', 'owner' FROM generate_series(1, 300) AS number;
    UPDATE collections SET project_id = 'home-' || abs(hashtext(collection_id)) % 300 + 1
    WHERE collection_id ~ 'many';
    UPDATE outbox_events SET payload = payload || jsonb_build_object('project_id', project_id)
    FROM collections WHERE collection_id = aggregate_id
"""
DELETE_THEM = """
    WITH gone AS (
        UPDATE collections SET is_active = false WHERE collection_id ~ 'many' RETURNING *
    )
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.deleted', 'backfill', jsonb_build_object(
        'project_id', project_id, 'research_context', NULL, 'created_at', NULL, 'updated_at', NULL)
    FROM gone
"""


async def settle_a_few(engine: AsyncEngine, workers_engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    """Run the worker's statements while the planner believes that tables are empty, until it keeps plans."""
    await sql.execute("VACUUM ANALYZE")
    for number in range(12):  # more often than PostgreSQL makes a plan anew
        await set_collection(engine, f"c{number % 3}", f"text {number}", is_active=number % 2 == 0)
        await run_once(workers_engine)


WORKERS_SESSIONS = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ 'worker'
"""


async def ended(workers_engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    """End the worker's sessions: only then do they report their statistics."""
    await workers_engine.dispose()
    async with asyncio.timeout(HANG_SECONDS):
        while await sql.fetchval(WORKERS_SESSIONS):
            await asyncio.sleep(0.01)
    await sql.execute("SELECT pg_stat_clear_snapshot()")


@COUNTS_AT_ONCE
async def test_plans_kept_from_the_time_when_tables_were_empty_read_no_table_from_end_to_end(
    settings: Settings, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    workers_engine, _ = arq_settings(settings)["ctx"]["engines"]
    await settle_a_few(engine, workers_engine, sql)
    await sql.execute(MANY_COLLECTIONS)
    while (await run_once(workers_engine)).events:
        pass
    await ended(workers_engine, sql)
    assert await sql.fetchval(SEQUENTIAL_SCANS) == 0


@COUNTS_AT_ONCE
async def test_nor_do_they_read_an_index_from_end_to_end_to_delete_a_row(
    settings: Settings, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    workers_engine, _ = arq_settings(settings)["ctx"]["engines"]
    await settle_a_few(engine, workers_engine, sql)
    await sql.execute(MANY_COLLECTIONS)
    await sql.execute(MANY_HOMES)
    while (await run_once(workers_engine)).events:
        pass
    await ended(workers_engine, sql)
    before = await sql.fetchval(INDEX_PAGES_READ)
    await sql.execute(DELETE_THEM)
    while (await run_once(workers_engine)).events:
        pass
    await ended(workers_engine, sql)
    assert await target_rows(sql, "many-1") == []
    # 11 each; 15 before PostgreSQL 17, which looks an array's keys up together; without the limits, 29.
    assert await sql.fetchval(INDEX_PAGES_READ) - before < 20 * 3_000


async def test_statements_of_batches_are_planned_once_and_not_for_each_batch(
    settings: Settings, engine: AsyncEngine
) -> None:
    workers_engine, _ = arq_settings(settings)["ctx"]["engines"]
    for number in range(6):
        await set_collection(engine, f"c{number % 2}", f"text {number}", is_active=number % 3 > 0)
        await run_once(workers_engine)
    async with driver_connection(workers_engine) as connection:
        planned = await connection.fetch(
            "SELECT statement, generic_plans, custom_plans FROM pg_prepared_statements"
            " WHERE statement ~ '(FROM|USING) outbox_events' AND statement !~ 'pg_prepared_statements'"
        )
    await workers_engine.dispose()
    assert len(planned) == 6  # claim, guard, deletions, updates, insertions, acknowledgement
    assert [row["statement"] for row in planned if row["custom_plans"] or not row["generic_plans"]] == []


async def test_the_time_before_the_next_try_is_random_from_zero_up_to_a_bound_that_doubles_and_ends(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds: list[tuple[float, float]] = []

    def uniform(least: float, most: float) -> float:
        bounds.append((least, most))
        return 0.0

    monkeypatch.setattr("worker.drainer.random.uniform", uniform)
    drainer = Drainer(engine)
    await set_collection(engine, "c1")
    await sql.execute("ALTER TABLE project_collections RENAME TO away")
    for _ in range(8):
        await drainer.drain("sweep")
    await sql.execute("ALTER TABLE away RENAME TO project_collections")
    await drainer.drain("sweep")
    await set_collection(engine, "c1")
    await sql.execute("ALTER TABLE project_collections RENAME TO away")
    await drainer.drain("sweep")
    assert bounds == [(0, most) for most in (0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 0.1)]
