"""Redis refuses, hangs and forgets, while users write.

It is away for as long as a test wants: what is answered or settled meanwhile did not wait for it.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from deploy.local.valkey import Valkey
from tests.acceptance.load import Load, all_applied, assert_all_present, prepare, rings_heard, steady_load
from tests.drift import drained, drift
from tests.legacy_rows import seed, set_collection
from tests.processes import (
    HANG_SECONDS,
    Running,
    environment,
    free_port,
    running,
    running_api,
    running_worker,
)

WRITES = 60
UNNOTICED = """
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
    VALUES ('from before', 'p1', 'name', 'owner', true)
"""
PATIENT = ["-m", "tests.acceptance.endless_patience"]


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "valkey") as server:
        yield server


@asynccontextmanager
async def patient_api(env: Mapping[str, str]) -> AsyncIterator[str]:
    """Start an API that waits for Redis without end wherever it waits for it at all; yields its base URL."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    arguments = [*PATIENT, "uvicorn", "api.main:app", "--port", str(port), "--no-access-log"]
    with running(arguments, env) as api:
        async with httpx.AsyncClient(timeout=HANG_SECONDS) as client, asyncio.timeout(HANG_SECONDS):
            while not await is_ready(client, url):
                assert api.process.poll() is None, api.output
                await asyncio.sleep(0.02)
        yield url


async def is_ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/readyz")).is_success
    except httpx.TransportError:
        return False


async def require_work_without_redis(load: Load, worker: Running, sql: asyncpg.Connection) -> None:
    """See that users are answered and that what they write is applied, as it is while Redis is away."""
    first = len(worker.logged("batch_settled"))
    await load.next_answers(WRITES)
    await all_applied(sql)
    async with asyncio.timeout(HANG_SECONDS):
        while not any(batch["wake"] == "poll" for batch in worker.logged("batch_settled")[first:]):
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_no_fault_of_redis_fails_or_slows_a_write_or_ends_the_worker(
    database_url: str, own_valkey: Valkey, sql: asyncpg.Connection
) -> None:
    await prepare(sql)
    env = environment(database_url, own_valkey.url)
    async with running_worker(env) as worker, patient_api(env) as url:
        async with steady_load(url) as load:
            await rings_heard(worker)

            await asyncio.to_thread(own_valkey.stop)
            await require_work_without_redis(load, worker, sql)
            own_valkey.start()
            await rings_heard(worker)

            os.kill(own_valkey.pid, signal.SIGSTOP)
            await require_work_without_redis(load, worker, sql)
            os.kill(own_valkey.pid, signal.SIGCONT)
            await rings_heard(worker)

            async with Redis.from_url(own_valkey.url) as redis:
                await redis.flushall()
            await load.next_answers(WRITES)
            await all_applied(sql)
            await rings_heard(worker)

        assert {answer.status for answer in load.answers} == {200}
        await drained(sql)
        assert await drift(sql) == []
        await assert_all_present(sql, load.answers)

        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0
        assert [line["pid"] for line in worker.logged("worker_started")] == [worker.pid]
        assert [line["pid"] for line in worker.logged("worker_stopped")] == [worker.pid]


async def test_worker_and_api_start_and_work_while_redis_is_away(
    database_url: str, own_valkey: Valkey, sql: asyncpg.Connection
) -> None:
    """Nor is anything else left undone that a worker does: audits, and backfills that are left to workers."""
    await seed(sql)
    await sql.execute(UNNOTICED)
    own_valkey.stop()
    env = environment(database_url, own_valkey.url, ADMIN_TOKEN="token")
    async with running_worker(env) as worker, running_api(env) as (_, url):
        async with httpx.AsyncClient(
            base_url=f"{url}/admin", headers={"Authorization": "Bearer token"}, timeout=HANG_SECONDS
        ) as admin:
            assert (await admin.post("/backfill", json={})).status_code == 202
            await worker.wait_for("backfill_finished")
            await drained(sql)
            verified = await admin.get("/verify-phase1-migration", params={"wait_seconds": 60})
        assert (verified.status_code, verified.json()["verdict"]) == (200, "in_sync")
        async with httpx.AsyncClient(
            base_url=url, headers={"User-ID": "owner"}, timeout=HANG_SECONDS
        ) as client:
            created = await client.post("/projects/p1/collections", json={"collection_name": "early"})
        assert created.status_code == 200
        await drained(sql)
        assert await drift(sql) == []
        assert all(beat["redis"] == "away" for beat in worker.logged("worker_heartbeat")[1:])


async def test_sigterm_ends_a_worker_whose_redis_hangs(
    database_url: str, own_valkey: Valkey, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    """Redis hangs until the worker has ended."""
    await seed(sql)
    async with running_worker(environment(database_url, own_valkey.url)) as worker:
        await set_collection(engine, "before")
        await drained(sql)
        os.kill(own_valkey.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(HANG_SECONDS):  # until a poll of Redis waits for its answer
                while not any(batch["wake"] == "poll" for batch in worker.logged("batch_settled")):
                    await set_collection(engine, "meanwhile")  # a sweep may be the first to see it
                    await asyncio.sleep(0.05)
            worker.signal(signal.SIGTERM)
            assert await worker.exit_code() == 0
        finally:
            os.kill(own_valkey.pid, signal.SIGCONT)
    assert worker.logged("worker_stopped")
