"""A commit that comes while a drain ends must not wait for the next sweep. Here there is no sweep."""

import asyncio
import contextlib
import gc
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from arq.worker import func
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.doorbell import DIRTY_KEY, DRAIN_JOB, QUEUE_NAME, WAKE_CHANNEL, Doorbell, open_redis, ring
from shared.settings import Settings
from tests.drift import drained, drift
from tests.legacy_rows import seed, set_collection
from tests.race import freezing
from tests.twins.doorbell import drain_then_clear
from worker.main import arq_settings, build_worker
from worker.wakeable import ANSWER_SECONDS, WakeableWorker

BURSTS = 60
WRITES = 15
BURSTS_TO_CONVICT = 60
BREAKS = 150
PATIENCE_SECONDS = 1.0  # without a ring nothing would be applied in any time


@pytest.fixture
async def doorbell(settings: Settings, sql: asyncpg.Connection) -> AsyncIterator[Doorbell]:
    await seed(sql)
    async with open_redis(settings.redis_url.get_secret_value()) as redis:
        doorbell = Doorbell(redis)
        ringing = asyncio.create_task(doorbell.run())
        yield doorbell
        ringing.cancel()
        await asyncio.wait([ringing])


@contextlib.asynccontextmanager
async def worker_without_sweep(settings: Settings, **changed: Any) -> AsyncIterator[None]:  # noqa: ANN401 - arq's own
    """Run the product's worker in this process, but for the safety net."""
    arguments = arq_settings(settings) | {"cron_jobs": [], "on_startup": None, "handle_signals": False}
    worker = build_worker(settings, arguments | changed)
    working = asyncio.create_task(worker.main())
    try:
        yield
    finally:
        working.cancel()
        await asyncio.wait([working])
        await worker.close()


async def listened_to(redis: Redis) -> None:
    """Return when a worker hears rings."""
    async with asyncio.timeout(5):
        while (await redis.pubsub_numsub(WAKE_CHANNEL))[0][1] == 0:
            await asyncio.sleep(0.01)


async def emptied(redis: Redis) -> None:
    """Return when no job is queued."""
    async with asyncio.timeout(5):
        while await redis.zcard(QUEUE_NAME):
            await asyncio.sleep(0.01)


async def deaf(_worker: WakeableWorker) -> None:
    """Hear no message, so that arq's jobs are all that wakes the worker."""
    await asyncio.Event().wait()


async def burst(engine: AsyncEngine, doorbell: Doorbell) -> None:
    """Write as long as a few drains take, so that one may be just ending when the last comes."""
    for number in range(WRITES):
        await set_collection(engine, f"c{number}", str(random.random()))  # noqa: S311 - chance, not a secret
        doorbell.press()
        await asyncio.sleep(random.uniform(0, 0.003))  # noqa: S311


@pytest.mark.parametrize("listens", [True, False])
async def test_every_commit_of_every_burst_is_applied_without_a_sweep(
    settings: Settings,
    engine: AsyncEngine,
    sql: asyncpg.Connection,
    doorbell: Doorbell,
    monkeypatch: pytest.MonkeyPatch,
    *,
    listens: bool,
) -> None:
    if not listens:
        monkeypatch.setattr(WakeableWorker, "_listen", deaf)
    async with worker_without_sweep(settings, poll_delay=0.02):
        for _ in range(BURSTS):
            await burst(engine, doorbell)
            await drained(sql, seconds=PATIENCE_SECONDS)
    assert await drift(sql) == []


async def test_the_bursts_convict_a_drain_that_clears_the_flag_after_its_scan(
    settings: Settings,
    engine: AsyncEngine,
    sql: asyncpg.Connection,
    doorbell: Doorbell,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(WakeableWorker, "_listen", deaf)
    twin = func(drain_then_clear, name=DRAIN_JOB, keep_result=0)
    async with worker_without_sweep(settings, functions=[twin], poll_delay=0.02):
        for _ in range(BURSTS_TO_CONVICT):
            await burst(engine, doorbell)
            try:
                await drained(sql, seconds=PATIENCE_SECONDS)
            except TimeoutError:
                return
    pytest.fail(f"{BURSTS_TO_CONVICT} bursts did not show the lost wake-up")


@pytest.mark.parametrize(
    "point", ["guard: claimed, before the guard", "acknowledge: after", "commit: of a batch"]
)
async def test_a_commit_during_the_last_batch_is_applied_after_it(
    point: str, settings: Settings, engine: AsyncEngine, sql: asyncpg.Connection, doorbell: Doorbell
) -> None:
    await freezing.install(sql)
    async with worker_without_sweep(settings):
        async with freezing.frozen(sql, point):
            await set_collection(engine, "in hand")
            doorbell.press()
            await freezing.arrived(sql, point)
            await set_collection(engine, "just too late for it")
            doorbell.press()
            await asyncio.sleep(0.1)
        await drained(sql, seconds=PATIENCE_SECONDS)
    assert await drift(sql) == []


async def test_the_rings_of_a_moment_get_one_answer(settings: Settings, redis_url: str) -> None:
    async with open_redis(redis_url) as redis, worker_without_sweep(settings):
        await listened_to(redis)
        await redis.config_resetstat()
        began = time.monotonic()
        for _ in range(50):
            await ring(redis)
            await asyncio.sleep(0.003)
        moments = (time.monotonic() - began) / ANSWER_SECONDS
        await emptied(redis)
        commands = await redis.info("commandstats")
    assert commands["cmdstat_zadd"]["calls"] == commands["cmdstat_zrem"]["calls"] <= moments + 1


async def test_a_job_whose_ring_was_heard_is_not_run_as_well(
    settings: Settings, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[str] = []

    async def run_job(_worker: WakeableWorker, job_id: str, _score: int) -> None:
        run.append(job_id)

    monkeypatch.setattr(WakeableWorker, "run_job", run_job)
    async with open_redis(redis_url) as redis, worker_without_sweep(settings, poll_delay=0.01):
        await listened_to(redis)
        await ring(redis)
        await emptied(redis)
    assert run == []


async def test_a_ring_that_comes_while_nobody_listens_finds_the_job_of_the_one_before_it(
    settings: Settings, engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seed(sql)
    monkeypatch.setattr("worker.wakeable.RESUBSCRIBE_SECONDS", 3600)
    monkeypatch.setattr("worker.wakeable.ANSWER_SECONDS", 60)
    async with (
        open_redis(settings.redis_url.get_secret_value()) as redis,
        worker_without_sweep(settings, poll_delay=1),
    ):
        await listened_to(redis)
        assert await ring(redis)
        await asyncio.sleep(0.1)  # heard, and nothing found
        await set_collection(engine, "c")
        await redis.client_kill_filter(_type="pubsub")
        assert not await ring(redis)  # heard by nobody, and no job of its own
        await drained(sql, seconds=20)


# redis-py's transactions complain when their connection breaks while they clean up.
@pytest.mark.filterwarnings("ignore:.*Redis.__del__:pytest.PytestUnraisableExceptionWarning")
async def test_connections_that_break_while_jobs_start_cost_the_worker_none_of_its_slots(
    settings: Settings,
    engine: AsyncEngine,
    sql: asyncpg.Connection,
    doorbell: Doorbell,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(WakeableWorker, "_listen", deaf)
    async with (
        open_redis(settings.redis_url.get_secret_value()) as redis,
        worker_without_sweep(settings, poll_delay=0.01),
    ):
        for _ in range(BREAKS):
            await redis.delete(DIRTY_KEY)
            await ring(redis)
            await asyncio.sleep(random.uniform(0, 0.015))  # noqa: S311 - chance, not a secret
            await redis.client_kill_filter(_type="normal", skipme=True)
        await set_collection(engine, "c")
        doorbell.press()
        await drained(sql, seconds=5)
    gc.collect()  # the complaints come here, not in another test
