"""The doorbell against a real Valkey: it rings, coalesces, outlasts outages, and never holds a writer up."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import uvloop
from arq.constants import job_key_prefix
from redis.asyncio import Redis

from deploy.local.valkey import Valkey
from shared.doorbell import (
    DIRTY_KEY,
    JOB_EXPIRES_MS,
    QUEUE_NAME,
    REDIS_ERRORS,
    REDIS_TIMEOUT_SECONDS,
    WAKE_CHANNEL,
    Doorbell,
    dismiss,
    open_pool,
    open_redis,
    ring,
)


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
    async with asyncio.timeout(5):
        while await redis.zcard(QUEUE_NAME) < at_least:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    jobs: int = await redis.zcard(QUEUE_NAME)
    return jobs


async def test_a_busy_doorbell_rests_for_three_times_as_long_as_it_rings(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    rings: list[float] = []

    async def slow_ring(*_: object) -> bool:
        rings.append(time.monotonic())
        await asyncio.sleep(0.01)
        return True

    monkeypatch.setattr("shared.doorbell.ring", slow_ring)
    async with running_doorbell(redis) as doorbell:
        began = time.monotonic()
        while time.monotonic() < began + 0.6:
            doorbell.press()
            await asyncio.sleep(0.001)
        ended = time.monotonic()
    assert 2 <= len(rings) <= 1 + (ended - began) / 0.04


async def test_a_ring_queues_one_due_job_and_wakes_who_listens(redis: Redis) -> None:
    async with redis.pubsub(ignore_subscribe_messages=True) as channel:
        await channel.subscribe(WAKE_CHANNEL)
        await channel.get_message(timeout=1)
        assert await ring(redis)
        assert await channel.get_message(timeout=1) is not None
    [(job_id, due_ms)] = await redis.zrange(QUEUE_NAME, 0, -1, withscores=True)
    assert due_ms < time.time() * 1000
    assert await redis.exists(job_key_prefix + job_id.decode())


async def test_every_ring_is_published_but_only_one_job_is_queued_at_a_time(redis: Redis) -> None:
    async with redis.pubsub(ignore_subscribe_messages=True) as channel:
        await channel.subscribe(WAKE_CHANNEL)
        await channel.get_message(timeout=1)
        assert await ring(redis)
        assert not await ring(redis)
        messages = [await channel.get_message(timeout=1) for _ in range(2)]
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


async def test_while_nobody_takes_a_job_another_is_queued_after_two_seconds(redis: Redis) -> None:
    await ring(redis)
    assert 0 < await redis.pttl(DIRTY_KEY) <= 2_000


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
        await asyncio.sleep(1)
        own_valkey.start()
        assert await queued_jobs(redis, at_least=1) == 1


async def test_a_press_returns_at_once_while_redis_hangs_and_rings_afterwards(own_valkey: Valkey) -> None:
    async with open_redis(own_valkey.url) as redis, running_doorbell(redis) as doorbell:
        await redis.ping()
        longest = 0.0
        async with hung(own_valkey):
            for _ in range(150):  # longer than one attempt to ring
                began = time.perf_counter()
                doorbell.press()
                await asyncio.sleep(0)  # what else runs in this loop must not block it either
                longest = max(longest, time.perf_counter() - began)
                await asyncio.sleep(0.01)
        assert longest < REDIS_TIMEOUT_SECONDS / 2
        assert await queued_jobs(redis, at_least=1) == 1


@pytest.mark.parametrize("connected", [True, False])
async def test_a_hung_redis_is_given_up_within_the_bound(own_valkey: Valkey, *, connected: bool) -> None:
    async with open_redis(own_valkey.url) as redis:
        if connected:
            await redis.ping()
        async with hung(own_valkey):
            began = time.monotonic()
            with pytest.raises(REDIS_ERRORS):
                await ring(redis)
            assert time.monotonic() - began < REDIS_TIMEOUT_SECONDS + 0.5


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
