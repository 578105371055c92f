"""Redis refuses, hangs and forgets, while users write."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from deploy.local.valkey import Valkey
from tests.acceptance.load import Answer, Load, assert_all_present, percentiles_ms, prepare, steady_load
from tests.drift import drained, drift
from tests.legacy_rows import seed
from tests.processes import Running, environment, running_api, running_worker

OUTAGE_SECONDS = 10
RETURN_SECONDS = 2  # after this the doorbell must be heard again
LAG_BOUND_MS = 1000
NOISE_MS = 250  # of a shared machine; a write that waits for a hung Redis waits 1,000


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "valkey") as server:
        yield server


class WorkerLog:
    """The worker's lines, one stretch of time after the other."""

    def __init__(self, worker: Running, sql: asyncpg.Connection) -> None:
        self._worker = worker
        self._sql = sql
        self._last_event = 0
        self._batches = 0

    async def settled(self) -> list[dict[str, Any]]:
        """Wait until all that was appended so far is settled; return the events since the last call."""
        last = await self._sql.fetchval("SELECT last_value FROM outbox_events_id_seq")
        await drained(self._sql)
        await asyncio.sleep(0.1)  # the lines come after the commit
        first, self._last_event = self._last_event, last
        return [line for line in self._worker.logged("event_settled") if first < line["event_id"] <= last]

    def wakes(self) -> list[str]:
        """Return what woke the worker for each batch since the last call."""
        batches = self._worker.logged("batch_settled")
        first, self._batches = self._batches, len(batches)
        return [batch["wake"] for batch in batches[first:]]


async def with_doorbell(load: Load, log: WorkerLog, seconds: float) -> list[Answer]:
    """Write while Redis is there; after a moment nearly every batch must be settled because of a ring."""
    await asyncio.sleep(RETURN_SECONDS)
    log.wakes()
    async with load.phase() as answers:
        await asyncio.sleep(seconds)
    wakes = log.wakes()
    assert wakes.count("doorbell") > 0.8 * len(wakes) > 0, wakes
    await log.settled()
    return answers


async def assert_applied_soon(log: WorkerLog, answers: list[Answer]) -> None:
    """The worker did without Redis: every event of the outage was settled within a second."""
    lags = [event["lag_ms"] for event in await log.settled()]
    assert len(lags) >= len(answers)
    assert max(lags) < LAG_BOUND_MS


def assert_as_fast(outage: list[Answer], usual: list[Answer]) -> None:
    """The writers did not notice: neither the typical write nor the slow ones took longer."""
    (p50, p99), (usual_p50, usual_p99) = percentiles_ms(outage), percentiles_ms(usual)
    assert p50 < 2 * usual_p50
    assert p99 < max(3 * usual_p99, usual_p99 + NOISE_MS)


@pytest.mark.slow
async def test_no_fault_of_redis_fails_or_slows_a_write_or_ends_the_worker(
    database_url: str, own_valkey: Valkey, sql: asyncpg.Connection
) -> None:
    await prepare(sql)
    env = environment(database_url, own_valkey.url)
    async with running_worker(env) as worker, running_api(env) as (_, url):
        async with steady_load(url) as load:
            log = WorkerLog(worker, sql)
            usual = await with_doorbell(load, log, 4)

            await asyncio.to_thread(own_valkey.stop)
            async with load.phase() as refused:
                await asyncio.sleep(OUTAGE_SECONDS)
            await assert_applied_soon(log, refused)
            own_valkey.start()
            usual += await with_doorbell(load, log, 2)

            os.kill(own_valkey.pid, signal.SIGSTOP)
            async with load.phase() as hung:
                await asyncio.sleep(OUTAGE_SECONDS)
            await assert_applied_soon(log, hung)
            os.kill(own_valkey.pid, signal.SIGCONT)
            usual += await with_doorbell(load, log, 2)

            async with Redis.from_url(own_valkey.url) as redis, load.phase() as forgotten:
                await redis.flushall()
                await asyncio.sleep(2)
            await assert_applied_soon(log, forgotten)
            usual += await with_doorbell(load, log, 2)

        for outage in (refused, hung, forgotten):
            assert_as_fast(outage, usual)
        answers = await load.answers()
        assert {answer.status for answer in answers} == {200}
        await drained(sql)
        assert await drift(sql) == []
        await assert_all_present(sql, answers)

        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0
        assert [line["pid"] for line in worker.logged("worker_started")] == [worker.pid]
        assert [line["pid"] for line in worker.logged("worker_stopped")] == [worker.pid]


async def test_worker_and_api_start_and_work_while_redis_is_away(
    database_url: str, own_valkey: Valkey, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    own_valkey.stop()
    env = environment(database_url, own_valkey.url)
    async with running_worker(env) as worker, running_api(env) as (_, url):
        async with httpx.AsyncClient(base_url=url, headers={"User-ID": "owner"}) as client:
            created = await client.post("/projects/p1/collections", json={"collection_name": "early"})
        assert created.status_code == 200
        settled = await worker.wait_for("event_settled")
        assert settled["lag_ms"] < LAG_BOUND_MS
        assert await drift(sql) == []


async def test_sigterm_ends_a_worker_whose_redis_hangs(database_url: str, own_valkey: Valkey) -> None:
    async with running_worker(environment(database_url, own_valkey.url)) as worker:
        await asyncio.sleep(1)
        os.kill(own_valkey.pid, signal.SIGSTOP)
        await asyncio.sleep(0.7)  # a poll of Redis is waiting for its answer
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code(seconds=8) == 0
        os.kill(own_valkey.pid, signal.SIGCONT)
    assert worker.logged("worker_stopped")
