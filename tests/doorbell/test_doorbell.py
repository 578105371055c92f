"""The doorbell against a real Valkey: it rings, coalesces, outlasts outages, and never holds a writer up."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import uvloop
from arq.constants import job_key_prefix
from redis.asyncio import Redis

from deploy.local.valkey import Valkey
from shared.doorbell import (
    DIRTY_KEY,
    DIRTY_MS,
    JOB_EXPIRES_MS,
    LONGEST_REST_SECONDS,
    QUEUE_NAME,
    REDIS_ERRORS,
    WAKE_CHANNEL,
    Doorbell,
    dismiss,
    open_pool,
    open_redis,
    ring,
)
from tests.doorbell.patience import be_patient_with_redis
from tests.processes import HANG_SECONDS

IMPATIENT_SECONDS = 0.1


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient_with_redis(monkeypatch)
    monkeypatch.setattr("shared.doorbell.LAST_RETRY_SECONDS", 0.1)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with open_redis(redis_url) as client:
        yield client


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "valkey") as server:
        yield server


@contextlib.asynccontextmanager
async def hung(server: Valkey) -> AsyncIterator[None]:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def running_doorbell(redis: Redis) -> AsyncIterator[Doorbell]:
    doorbell = Doorbell(redis)
    task = asyncio.create_task(doorbell.run())
    yield doorbell
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


async def queued_jobs(redis: Redis, at_least: int) -> int:
    """Wait for this many jobs, and a moment longer for any that should not come."""
    async with asyncio.timeout(HANG_SECONDS):
        while await redis.zcard(QUEUE_NAME) < at_least:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    jobs: int = await redis.zcard(QUEUE_NAME)
    return jobs


async def test_a_busy_doorbell_rests_for_three_times_as_long_as_it_rings(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of ours, on which only rings take time."""
    durations, now, rests = [0.01, 0.002, 10.0], 0.0, list[float]()

    async def slow_ring(*_: object) -> bool:
        nonlocal now
        now += durations[len(rests)]
        return True

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        await asyncio.sleep(0)

    resting = ModuleType("asyncio")
    vars(resting).update(vars(asyncio) | {"sleep": rest})
    monkeypatch.setattr("shared.doorbell.ring", slow_ring)
    monkeypatch.setattr("shared.doorbell.asyncio", resting)
    monkeypatch.setattr("shared.doorbell.time", SimpleNamespace(perf_counter=lambda: now))
    async with running_doorbell(redis) as doorbell, asyncio.timeout(HANG_SECONDS):
        while len(rests) < len(durations):
            doorbell.press()
            await asyncio.sleep(0)
    assert rests == pytest.approx([0.03, 0.006, LONGEST_REST_SECONDS])


async def test_a_ring_queues_one_due_job_and_wakes_who_listens(redis: Redis) -> None:
    async with redis.pubsub(ignore_subscribe_messages=True) as channel:
        await channel.subscribe(WAKE_CHANNEL)
        await channel.get_message(timeout=HANG_SECONDS)
        assert await ring(redis)
        assert await channel.get_message(timeout=HANG_SECONDS) is not None
    [(job_id, due_ms)] = await redis.zrange(QUEUE_NAME, 0, -1, withscores=True)
    assert due_ms < time.time() * 1000
    assert await redis.exists(job_key_prefix + job_id.decode())


async def test_every_ring_is_published_but_only_one_job_is_queued_at_a_time(redis: Redis) -> None:
    async with redis.pubsub(ignore_subscribe_messages=True) as channel:
        await channel.subscribe(WAKE_CHANNEL)
        await channel.get_message(timeout=HANG_SECONDS)
        assert await ring(redis)
        assert not await ring(redis)
        messages = [await channel.get_message(timeout=HANG_SECONDS) for _ in range(2)]
    [job_id] = await redis.zrange(QUEUE_NAME, 0, -1)
    assert [message["data"] for message in messages if message] == [job_id, b""]
    await redis.delete(DIRTY_KEY)
    assert await ring(redis)
    assert await redis.zcard(QUEUE_NAME) == 2


async def test_a_ring_that_was_answered_leaves_nothing_and_the_next_queues_a_job_again(redis: Redis) -> None:
    await ring(redis)
    await dismiss(redis, [job_id.decode() for job_id in await redis.zrange(QUEUE_NAME, 0, -1)])
    assert await redis.keys("*") == []
    assert await ring(redis)


async def test_jobs_that_no_worker_took_do_not_pile_up(redis: Redis) -> None:
    old_ms = (time.time() - JOB_EXPIRES_MS / 1000 - 5) * 1000
    await redis.zadd(QUEUE_NAME, {"taken by nobody": old_ms})
    await ring(redis)
    assert await redis.zcard(QUEUE_NAME) == 1


@pytest.mark.parametrize("ahead_seconds", [3600, -3600])
async def test_a_ring_by_whose_clock_is_wrong_takes_no_sweep_away_and_is_due_all_the_same(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, ahead_seconds: int
) -> None:
    """A sweep is queued up to a second before its time, and by a worker whose own clock may be behind."""
    now = time.time()
    sweeps = {"cron:sweep:1": now * 1000 + 500, "cron:sweep:2": (now - 3600) * 1000}
    await redis.zadd(QUEUE_NAME, sweeps)
    with monkeypatch.context() as patch:
        patch.setattr("shared.doorbell.time.time", lambda: now + ahead_seconds)
        assert await ring(redis)
    queued = {job.decode(): score for job, score in await redis.zrange(QUEUE_NAME, 0, -1, withscores=True)}
    assert sweeps.items() <= queued.items()
    (due_ms,) = [score for job, score in queued.items() if job not in sweeps]
    assert now * 1000 - 1_500 < due_ms < time.time() * 1000


async def test_while_nobody_takes_a_job_another_is_queued_after_two_seconds(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DIRTY_MS == 2_000
    monkeypatch.setattr("shared.doorbell.DIRTY_MS", 2_000 * HANG_SECONDS)
    await ring(redis)
    assert 1_000 * HANG_SECONDS < await redis.pttl(DIRTY_KEY) <= 2_000 * HANG_SECONDS


async def test_a_burst_of_presses_queues_one_job(redis: Redis) -> None:
    async with running_doorbell(redis) as doorbell:
        for _ in range(20):
            for _ in range(50):
                doorbell.press()
            await asyncio.sleep(0.005)
        assert await queued_jobs(redis, at_least=1) == 1


async def test_what_was_pressed_while_redis_was_away_rings_when_it_is_back(own_valkey: Valkey) -> None:
    async with open_redis(own_valkey.url) as redis, running_doorbell(redis) as doorbell:
        await redis.ping()
        own_valkey.stop()
        doorbell.press()
        async with asyncio.timeout(HANG_SECONDS):
            while doorbell.is_heard:
                await asyncio.sleep(0.01)
        own_valkey.start()
        assert await queued_jobs(redis, at_least=1) == 1


@pytest.mark.parametrize("is_given_up", [False, True])
async def test_a_press_returns_at_once_while_redis_hangs_and_rings_afterwards(
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch, *, is_given_up: bool
) -> None:
    """It hangs for as long as we want: whoever waited for it would not get to the end of the block."""
    async with open_redis(own_valkey.url) as redis, running_doorbell(redis) as doorbell:
        await redis.ping()
        if is_given_up:
            monkeypatch.setattr("shared.doorbell.REDIS_TIMEOUT_SECONDS", IMPATIENT_SECONDS)
        async with hung(own_valkey), asyncio.timeout(HANG_SECONDS):
            presses = 0
            while presses < 150 or doorbell.is_heard == is_given_up:
                doorbell.press()
                presses += 1
                await asyncio.sleep(0)  # what else runs in this loop must not block it either
        assert await queued_jobs(redis, at_least=1) == 1


@pytest.mark.parametrize("connected", [True, False])
async def test_a_hung_redis_is_given_up_within_the_bound(
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch, *, connected: bool
) -> None:
    async with open_redis(own_valkey.url) as patient:
        if connected:
            await patient.ping()
        monkeypatch.setattr("shared.doorbell.REDIS_TIMEOUT_SECONDS", IMPATIENT_SECONDS)
        async with open_redis(own_valkey.url) as impatient, hung(own_valkey):
            for redis in (patient, impatient):  # by its own bound on a whole ring, and by the pool's
                with pytest.raises(REDIS_ERRORS):
                    await asyncio.wait_for(ring(redis), HANG_SECONDS)


def test_a_connection_that_breaks_before_it_is_written_to_is_an_error_of_redis_on_uvloop_too(
    redis_url: str,
) -> None:
    async def write_to_a_closed_connection() -> None:
        pool = open_pool(redis_url)
        connection = await pool.get_connection()
        connection._writer.transport.abort()  # noqa: SLF001 - as the network does it
        await asyncio.sleep(0)
        with pytest.raises(REDIS_ERRORS):
            await connection.send_command("PING", check_health=False)
        await pool.disconnect()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(write_to_a_closed_connection())
