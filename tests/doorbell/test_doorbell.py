"""The doorbell against a real Valkey: it rings, coalesces, outlasts outages, and never holds a writer up."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import asyncpg
import pytest
import uvloop
from arq.constants import job_key_prefix
from redis.asyncio import Redis
from structlog.testing import capture_logs

from deploy.local.valkey import Valkey
from shared.redis.client import open_pool, open_redis
from shared.redis.deployment import Deployment, Lane, Names
from shared.redis.doorbell import JOB_EXPIRES_MS, LONGEST_REST_SECONDS, Doorbell, dismiss, ring
from shared.redis.faults import REDIS_ERRORS
from tests.doorbell.patience import be_patient_with_redis
from tests.doorbell.place import NOWHERE, nowhere
from tests.processes import HANG_SECONDS

IMPATIENT_SECONDS = 0.1


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient_with_redis(monkeypatch)
    monkeypatch.setattr("shared.redis.doorbell.LAST_RETRY_SECONDS", 0.1)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with open_redis(redis_url) as client:
        yield client


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "valkey") as server:
        yield server


def be_impatient(patch: pytest.MonkeyPatch) -> None:
    for module in ("doorbell", "client"):
        patch.setattr(f"shared.redis.{module}.REDIS_TIMEOUT_SECONDS", IMPATIENT_SECONDS)


@contextlib.asynccontextmanager
async def hung(server: Valkey) -> AsyncIterator[None]:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def running_doorbell(redis: Redis) -> AsyncIterator[Doorbell]:
    doorbell = Doorbell(redis, nowhere())
    task = asyncio.create_task(doorbell.run())
    yield doorbell
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


async def rung(redis: Redis) -> None:
    """Wait for the job of a ring."""
    async with asyncio.timeout(HANG_SECONDS):
        while not await redis.zcard(NOWHERE.queue):
            await asyncio.sleep(0.01)


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
    monkeypatch.setattr("shared.redis.doorbell.ring", slow_ring)
    monkeypatch.setattr("shared.redis.doorbell.asyncio", resting)
    monkeypatch.setattr("shared.redis.doorbell.time", SimpleNamespace(perf_counter=lambda: now))
    async with running_doorbell(redis) as doorbell, asyncio.timeout(HANG_SECONDS):
        while len(rests) < len(durations):
            doorbell.press()
            await asyncio.sleep(0)
    assert rests == pytest.approx([0.03, 0.006, LONGEST_REST_SECONDS])


@pytest.mark.parametrize("lane", ["live", "bulk"])
async def test_a_ring_queues_one_due_job_and_wakes_who_listens(redis: Redis, lane: Lane) -> None:
    async with redis.pubsub(ignore_subscribe_messages=True) as channel:
        await channel.subscribe(NOWHERE.channel(lane))
        await channel.get_message(timeout=HANG_SECONDS)
        for _ in range(3):
            await ring(redis, NOWHERE, lane)
            assert await channel.get_message(timeout=HANG_SECONDS) is not None
    [(job_id, due_ms)] = await redis.zrange(NOWHERE.queue, 0, -1, withscores=True)
    assert 0 < due_ms < 1_000  # whatever a clock says
    assert await redis.exists(job_key_prefix + job_id.decode())


async def test_a_ring_that_was_answered_leaves_nothing_and_the_next_queues_the_job_again(
    redis: Redis,
) -> None:
    await ring(redis, NOWHERE)
    assert await dismiss(redis, NOWHERE)
    assert await redis.keys("*") == []
    assert not await dismiss(redis, NOWHERE)
    await ring(redis, NOWHERE)
    assert await redis.zcard(NOWHERE.queue) == 1


async def test_a_job_that_no_worker_took_is_forgotten(redis: Redis) -> None:
    await ring(redis, NOWHERE)
    keys = await redis.keys("*")
    assert len(keys) == 2
    for key in keys:
        assert 0 < await redis.pttl(key) <= JOB_EXPIRES_MS


async def test_a_burst_of_presses_is_rung_for_a_few_times(redis: Redis) -> None:
    await redis.config_resetstat()
    async with running_doorbell(redis) as doorbell:
        for _ in range(20):
            for _ in range(50):
                doorbell.press()
            await asyncio.sleep(0)
        await asyncio.wait_for(doorbell.rung(), HANG_SECONDS)
    assert (await redis.info("commandstats"))["cmdstat_publish"]["calls"] <= 20


async def test_rings_follow_the_database_to_another_identity(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a logical switch-over leads to another server."""
    identity = NOWHERE.identity

    async def read() -> str:
        return identity

    monkeypatch.setattr("shared.redis.deployment.FRESH_SECONDS", 0)
    doorbell = Doorbell(redis, Deployment(read))
    ringing = asyncio.create_task(doorbell.run())
    doorbell.press()
    await rung(redis)
    identity = "fedcba9876543210"
    doorbell.press()
    async with asyncio.timeout(HANG_SECONDS):
        while not await redis.zcard(Names(identity).queue):
            await asyncio.sleep(0.01)
    ringing.cancel()
    await asyncio.wait([ringing])


async def test_while_the_identity_is_not_known_it_says_so_and_rings_as_soon_as_it_is(redis: Redis) -> None:
    may_know = asyncio.Event()

    async def read() -> str:
        if not may_know.is_set():
            raise asyncpg.InsufficientPrivilegeError
        return NOWHERE.identity

    doorbell = Doorbell(redis, Deployment(read))
    with capture_logs() as lines:
        ringing = asyncio.create_task(doorbell.run())
        doorbell.press()
        async with asyncio.timeout(HANG_SECONDS):
            while doorbell.is_heard:
                await asyncio.sleep(0.01)
        may_know.set()
        await rung(redis)
        await asyncio.wait_for(doorbell.rung(), HANG_SECONDS)
    ringing.cancel()
    await asyncio.wait([ringing])
    assert [line["event"] for line in lines] == ["doorbell_silent", "doorbell_restored"]
    assert "deploy/roles.sql" in lines[0]["hint"]


async def test_what_was_pressed_while_redis_was_away_rings_when_it_is_back(own_valkey: Valkey) -> None:
    async with open_redis(own_valkey.url) as redis, running_doorbell(redis) as doorbell:
        await redis.ping()
        own_valkey.stop()
        doorbell.press()
        async with asyncio.timeout(HANG_SECONDS):
            while doorbell.is_heard:
                await asyncio.sleep(0.01)
        own_valkey.start()
        await rung(redis)


@pytest.mark.parametrize("is_given_up", [False, True])
async def test_a_press_returns_at_once_while_redis_hangs_and_rings_afterwards(
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch, *, is_given_up: bool
) -> None:
    """It hangs for as long as we want: whoever waited for it would not get to the end of the block."""
    async with open_redis(own_valkey.url) as redis, running_doorbell(redis) as doorbell:
        await redis.ping()
        if is_given_up:
            be_impatient(monkeypatch)
        async with hung(own_valkey), asyncio.timeout(HANG_SECONDS):
            presses = 0
            while presses < 150 or doorbell.is_heard == is_given_up:
                doorbell.press()
                presses += 1
                await asyncio.sleep(0)  # what else runs in this loop must not block it either
        await rung(redis)


@pytest.mark.parametrize("connected", [True, False])
async def test_a_hung_redis_is_given_up_within_the_bound(
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch, *, connected: bool
) -> None:
    async with open_redis(own_valkey.url) as patient:
        if connected:
            await patient.ping()
        be_impatient(monkeypatch)
        async with open_redis(own_valkey.url) as impatient, hung(own_valkey):
            for redis in (patient, impatient):  # by its own bound on a whole ring, and by the pool's
                with pytest.raises(REDIS_ERRORS):
                    await asyncio.wait_for(ring(redis, NOWHERE), HANG_SECONDS)


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
