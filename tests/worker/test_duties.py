import asyncio
import signal
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared import audit_runs, backfill_runs
from shared.audit_runs import AuditOptions, AuditRun
from shared.backfill_runs import BackfillOptions, BackfillRun
from shared.settings import Settings
from tests.drift import drained, drift
from tests.processes import environment, running_worker

COLLECTIONS = 1_000
RATE = 1_000  # a run takes a second: time to stop the worker in the middle

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
    async with asyncio.timeout(20):
        while (run := await read()) is None or not is_so(run):
            await asyncio.sleep(0.02)


async def test_a_backfill_left_to_workers_goes_on_in_another_when_its_worker_is_stopped(
    engine: AsyncEngine, sql: asyncpg.Connection, env: dict[str, str]
) -> None:
    await sql.execute(INSERT, COLLECTIONS)

    async def latest() -> BackfillRun | None:
        async with engine.connect() as connection:
            return await backfill_runs.latest(connection)

    async with engine.begin() as connection:
        await backfill_runs.start(connection, BackfillOptions(rate=RATE, in_worker=True))
    async with running_worker(env) as first:
        await until(latest, lambda run: isinstance(run, BackfillRun) and run.processed > 0)
        first.signal(signal.SIGTERM)
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
        async with asyncio.timeout(20):
            while await sql.fetchval("SELECT requested_by FROM audit_runs WHERE status = 'finished'") is None:
                await asyncio.sleep(0.02)
        assert await sql.fetchval("SELECT requested_by FROM audit_runs") == "schedule"


async def test_a_duty_that_fails_again_and_again_is_reported_once_and_ends_no_worker(
    sql: asyncpg.Connection, env: dict[str, str]
) -> None:
    await sql.execute("ALTER TABLE backfill_runs RENAME TO away")
    async with running_worker(env) as worker:
        failed = await worker.wait_for("duty_failed")
        assert (failed["duty"], failed["sqlstate"], failed["level"]) == ("backfill", "42P01", "error")
        await asyncio.sleep(2.5)
        assert len(worker.logged("duty_failed")) == 1
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0
