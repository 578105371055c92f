"""Redis refuses, hangs and forgets, while users write."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from deploy.local.valkey import Valkey
from shared.doorbell import REDIS_TIMEOUT_SECONDS
from tests.acceptance.load import (
    Answer,
    Load,
    assert_all_present,
    percentiles_ms,
    prepare,
    read,
    steady_load,
)
from tests.drift import drained, drift
from tests.legacy_rows import seed
from tests.processes import Running, environment, running_api, running_worker

OUTAGE_SECONDS = 10
RETURN_SECONDS = 2  # after this the doorbell must be heard again
LAG_BOUND_MS = 1000
NOISE_MS = 250  # of a shared machine, at its worst


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


@dataclass(frozen=True)
class Stretch:
    """The writes of a stretch of time, and the reads that another API process answered meanwhile."""

    writes: list[Answer] = field(default_factory=list)
    control: list[Answer] = field(default_factory=list)


@dataclass(frozen=True)
class Traffic:
    """Users who write, and others who read without any need of Redis: they feel only the machine."""

    writes: Load
    control: Load

    @contextlib.asynccontextmanager
    async def stretch(self) -> AsyncIterator[Stretch]:
        """Collect the answers to what is sent in the block; complete after its end."""
        stretch = Stretch()
        async with self.writes.phase() as writes, self.control.phase() as control:
            yield stretch
        stretch.writes.extend(writes)
        stretch.control.extend(control)


async def with_doorbell(traffic: Traffic, log: WorkerLog, usual: Stretch, seconds: float) -> None:
    """Write while Redis is there; after a moment nearly every batch must be settled because of a ring."""
    await asyncio.sleep(RETURN_SECONDS)
    log.wakes()
    async with traffic.stretch() as stretch:
        await asyncio.sleep(seconds)
    wakes = log.wakes()
    assert wakes.count("doorbell") > 0.8 * len(wakes) > 0, wakes
    await log.settled()
    usual.writes.extend(stretch.writes)
    usual.control.extend(stretch.control)


async def assert_applied_soon(log: WorkerLog, outage: Stretch) -> None:
    """The worker did without Redis: every event of the outage was settled within a second."""
    lags = [event["lag_ms"] for event in await log.settled()]
    assert len(lags) >= len(outage.writes)
    assert max(lags) < LAG_BOUND_MS


def assert_as_fast(outage: Stretch, usual: Stretch) -> None:
    """The writers did not notice: neither the typical write nor the slow ones took longer.

    Where the reads became slower too, others took the machine. Then the bound is what a write would
    wait for a hung Redis.
    """
    (p50, p99), (usual_p50, usual_p99) = percentiles_ms(outage.writes), percentiles_ms(usual.writes)
    is_disturbed = percentiles_ms(outage.control)[0] > 1.3 * percentiles_ms(usual.control)[0]
    assert p50 < (NOISE_MS if is_disturbed else 2 * usual_p50)
    assert p99 < (1000 * REDIS_TIMEOUT_SECONDS if is_disturbed else max(3 * usual_p99, usual_p99 + NOISE_MS))


@pytest.mark.slow
@pytest.mark.alone
async def test_no_fault_of_redis_fails_or_slows_a_write_or_ends_the_worker(
    database_url: str, own_valkey: Valkey, redis_url: str, sql: asyncpg.Connection
) -> None:
    await prepare(sql)
    env = environment(database_url, own_valkey.url)
    async with (
        running_worker(env) as worker,
        running_api(env) as (_, url),
        running_api(environment(database_url, redis_url)) as (_, control_url),
    ):
        async with steady_load(url) as writes, steady_load(control_url, read, 25) as control:
            traffic, log, usual = Traffic(writes, control), WorkerLog(worker, sql), Stretch()
            await with_doorbell(traffic, log, usual, 4)

            await asyncio.to_thread(own_valkey.stop)
            async with traffic.stretch() as refused:
                await asyncio.sleep(OUTAGE_SECONDS)
            await assert_applied_soon(log, refused)
            own_valkey.start()
            await with_doorbell(traffic, log, usual, 2)

            os.kill(own_valkey.pid, signal.SIGSTOP)
            async with traffic.stretch() as hung:
                await asyncio.sleep(OUTAGE_SECONDS)
            await assert_applied_soon(log, hung)
            os.kill(own_valkey.pid, signal.SIGCONT)
            await with_doorbell(traffic, log, usual, 2)

            async with Redis.from_url(own_valkey.url) as redis, traffic.stretch() as forgotten:
                await redis.flushall()
                await asyncio.sleep(2)
            await assert_applied_soon(log, forgotten)
            await with_doorbell(traffic, log, usual, 2)

        for outage in (refused, hung, forgotten):
            assert_as_fast(outage, usual)
        answers = await writes.answers()
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
