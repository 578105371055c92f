import asyncio
import signal
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared import audit_runs, backfill_runs
from shared.audit_runs import AuditOptions, AuditRun
from shared.backfill_runs import BackfillOptions, BackfillRun
from shared.settings import Settings
from tests.backfill.rows import fix_chunk_size
from tests.drift import drained, drift
from tests.legacy_rows import set_collection
from tests.processes import HANG_SECONDS, environment, running_worker
from tests.race import freezing
from worker.backfill.custody import take_up
from worker.custody import Custody
from worker.main import arq_settings, stop

COLLECTIONS = 100
CHUNK_ROWS = 10
FAILURES = 3

INSERT = """
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
    SELECT 'c' || number, 'p1', 'name', 'owner', true FROM generate_series(1, $1::integer) AS number
"""


@pytest.fixture
def env(settings: Settings) -> dict[str, str]:
    return environment(settings.database_url.get_secret_value(), settings.redis_url.get_secret_value())


async def until(
    read: Callable[[], Awaitable[BackfillRun | AuditRun | None]],
    is_so: Callable[[BackfillRun | AuditRun], bool],
) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while (run := await read()) is None or not is_so(run):
            await asyncio.sleep(0.02)


async def test_a_backfill_left_to_workers_goes_on_in_another_when_its_worker_is_stopped(
    engine: AsyncEngine, sql: asyncpg.Connection, env: dict[str, str]
) -> None:
    await sql.execute(INSERT, COLLECTIONS)
    await fix_chunk_size(sql, CHUNK_ROWS)
    await freezing.install_gate(sql, "c50")

    async def latest() -> BackfillRun | None:
        async with engine.connect() as connection:
            return await backfill_runs.latest(connection)

    async with engine.begin() as connection:
        await backfill_runs.start(connection, BackfillOptions(in_worker=True))
    async with Redis.from_url(env["REDIS_URL"]) as redis, running_worker(env) as first:
        health_key = first.logged("worker_started")[0]["health_key"]
        async with freezing.frozen(sql, freezing.GATE):
            await freezing.arrived(sql, freezing.GATE)
            async with asyncio.timeout(HANG_SECONDS):
                while not await redis.exists(health_key):
                    await asyncio.sleep(0.01)
                first.signal(signal.SIGTERM)
                while await redis.exists(health_key):  # the last before it tells its duties to end
                    await asyncio.sleep(0.01)
        assert await first.exit_code() == 0
    stopped = await latest()
    assert stopped is not None
    assert (stopped.status, stopped.is_driven) == ("running", False)
    assert 0 < stopped.processed < COLLECTIONS

    async with running_worker(env) as second:
        await until(latest, lambda run: run.status == "finished")
        await drained(sql)
        assert second.logged("duty_failed") == []
    finished = await latest()
    assert finished is not None
    assert (finished.processed, finished.enqueued) == (COLLECTIONS, COLLECTIONS)
    assert finished.driver != stopped.driver
    assert await drift(sql) == []


async def test_a_worker_carries_out_the_audit_that_was_requested_and_one_of_its_own(
    engine: AsyncEngine, sql: asyncpg.Connection, env: dict[str, str]
) -> None:
    await sql.execute(INSERT, 10)
    async with engine.begin() as connection:
        requested = await audit_runs.request(connection, AuditOptions(), "admin")

    async def fetch(run_id: int) -> AuditRun | None:
        async with engine.connect() as connection:
            return await audit_runs.fetch(connection, run_id)

    async with running_worker(env):
        await until(lambda: fetch(requested), lambda run: run.status == "finished")
    run = await fetch(requested)
    assert run is not None
    assert (run.verdict, run.compared, run.missing) == ("drift", 10, 10)

    await sql.execute("DELETE FROM audit_runs")
    async with running_worker(env):
        async with asyncio.timeout(HANG_SECONDS):
            while await sql.fetchval("SELECT requested_by FROM audit_runs WHERE status = 'finished'") is None:
                await asyncio.sleep(0.02)
        assert await sql.fetchval("SELECT requested_by FROM audit_runs") == "schedule"


async def test_a_duty_that_fails_again_and_again_is_reported_once(
    settings: Settings, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    async def counting(engine: AsyncEngine) -> Custody[BackfillRun] | None:
        nonlocal tries
        tries += 1
        return await take_up(engine)

    monkeypatch.setattr("worker.duties.take_up_backfill", counting)
    await sql.execute("ALTER TABLE backfill_runs RENAME TO away")
    ctx = arq_settings(settings)["ctx"]
    with capture_logs() as lines:
        async with asyncio.timeout(HANG_SECONDS):
            while tries < FAILURES:
                ctx["duties"].look()
                await asyncio.sleep(0.01)
        await stop(ctx)
    failed = [line for line in lines if line["event"] == "duty_failed" and line["duty"] == "backfill"]
    assert [(line["sqlstate"], line["log_level"]) for line in failed] == [("42P01", "error")]


async def test_a_duty_that_fails_ends_no_worker_and_holds_up_no_event(
    engine: AsyncEngine, sql: asyncpg.Connection, env: dict[str, str]
) -> None:
    await sql.execute("ALTER TABLE backfill_runs RENAME TO away")
    async with running_worker(env) as worker:
        await worker.wait_for("duty_failed")
        await set_collection(engine, "c1")
        await drained(sql)
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0
