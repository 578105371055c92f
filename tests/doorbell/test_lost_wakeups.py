"""A commit that comes while a drain ends must not wait for the next sweep. Here there is no sweep."""

import asyncio
import contextlib
import gc
import random
import time
from collections.abc import AsyncIterator, Collection
from typing import Any

import asyncpg
import pytest
from arq.worker import func
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.doorbell import (
    DIRTY_KEY,
    DRAIN_JOB,
    QUEUE_NAME,
    WAKE_CHANNEL,
    Doorbell,
    dismiss,
    open_redis,
    ring,
)
from shared.settings import Settings
from tests.doorbell.patience import be_patient_with_redis
from tests.drift import drained, drift
from tests.legacy_rows import seed, set_collection
from tests.processes import HANG_SECONDS
from tests.race import freezing
from tests.twins.doorbell import drain_then_clear
from worker.drainer import Drainer
from worker.main import arq_settings, build_worker
from worker.wakeable import ANSWER_SECONDS, WakeableWorker

BURSTS = 12
WRITES = 15
BURSTS_TO_CONVICT = 60
BREAKS = 150
LOST_SECONDS = 1.0  # without a ring nothing would be applied in any time
NEVER_SECONDS = 3600.0


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient_with_redis(monkeypatch)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What woke the live lane: a line for each time."""
    reasons: list[str] = []
    wake_live = Drainer.wake_live

    def noting(drainer: Drainer, reason: str) -> None:
        reasons.append(reason)
        wake_live(drainer, reason)

    monkeypatch.setattr(Drainer, "wake_live", noting)
    return reasons


async def grown(noted: list[str], count: int) -> None:
    """Return when so many are noted."""
    async with asyncio.timeout(HANG_SECONDS):
        while len(noted) < count:
            await asyncio.sleep(0.002)


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
async def worker_without_sweep(settings: Settings, **changed: Any) -> AsyncIterator[Drainer]:  # noqa: ANN401 - arq's own
    """Run the product's worker in this process, but for the safety net; yields its drainer."""
    arguments = arq_settings(settings) | {"cron_jobs": [], "on_startup": None, "handle_signals": False}
    worker = build_worker(settings, arguments | changed)
    working = asyncio.create_task(worker.main())
    try:
        yield arguments["ctx"]["drainer"]
    finally:
        working.cancel()
        await asyncio.wait([working])
        await worker.close()


async def listened_to(redis: Redis) -> None:
    """Return when a worker hears rings."""
    async with asyncio.timeout(HANG_SECONDS):
        while (await redis.pubsub_numsub(WAKE_CHANNEL))[0][1] == 0:
            await asyncio.sleep(0.01)


async def emptied(redis: Redis) -> None:
    """Return when no job is queued."""
    async with asyncio.timeout(HANG_SECONDS):
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
            await drained(sql)
    assert await drift(sql) == []


@pytest.mark.long  # tests/race/test_wake_ups.py convicts it without chance
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
                await drained(sql, seconds=LOST_SECONDS)
            except TimeoutError:
                return
    pytest.fail(f"{BURSTS_TO_CONVICT} bursts did not show the lost wake-up")


@pytest.mark.parametrize(
    "point", ["guard: claimed, before the guard", "acknowledge: after", "commit: of a batch"]
)
async def test_a_commit_during_the_last_batch_is_applied_after_it(
    point: str,
    *,
    settings: Settings,
    engine: AsyncEngine,
    sql: asyncpg.Connection,
    redis_url: str,
    doorbell: Doorbell,
    heard: list[str],
) -> None:
    await freezing.install(sql)
    async with open_redis(redis_url) as redis, worker_without_sweep(settings, poll_delay=NEVER_SECONDS):
        await listened_to(redis)
        before = len(heard)
        async with freezing.frozen(sql, point):
            await set_collection(engine, "in hand")
            doorbell.press()
            await freezing.arrived(sql, point)
            await set_collection(engine, "just too late for it")
            doorbell.press()
            await grown(heard, before + 2)
        await drained(sql)
    assert await drift(sql) == []


async def test_the_rings_of_a_moment_get_one_answer(settings: Settings, redis_url: str) -> None:
    async with open_redis(redis_url) as redis, worker_without_sweep(settings, poll_delay=NEVER_SECONDS):
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
    settings: Settings, redis_url: str, heard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[str] = []
    polled: list[str] = []
    may_poll, may_answer = asyncio.Event(), asyncio.Event()
    poll = WakeableWorker._poll_iteration  # noqa: SLF001 - arq's

    async def run_job(_worker: WakeableWorker, job_id: str, _score: int) -> None:
        run.append(job_id)

    async def noting_poll(worker: WakeableWorker) -> None:
        await may_poll.wait()
        await poll(worker)
        polled.append("")

    async def late_answer(redis: Redis, job_ids: Collection[str]) -> None:
        await may_answer.wait()
        await dismiss(redis, job_ids)

    monkeypatch.setattr(WakeableWorker, "run_job", run_job)
    monkeypatch.setattr(WakeableWorker, "_poll_iteration", noting_poll)
    monkeypatch.setattr("worker.wakeable.dismiss", late_answer)
    async with open_redis(redis_url) as redis, worker_without_sweep(settings, poll_delay=0.01):
        await listened_to(redis)
        before = len(heard)
        await ring(redis)
        await grown(heard, before + 1)
        may_poll.set()
        await grown(polled, 3)
        assert await redis.zcard(QUEUE_NAME) == 1  # for every poll to see
        may_answer.set()
        await emptied(redis)
    assert run == []


async def test_a_ring_that_comes_while_nobody_listens_finds_the_job_of_the_one_before_it(
    settings: Settings,
    engine: AsyncEngine,
    sql: asyncpg.Connection,
    heard: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await seed(sql)
    monkeypatch.setattr("worker.wakeable.RESUBSCRIBE_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr("worker.wakeable.ANSWER_SECONDS", NEVER_SECONDS)
    async with (
        open_redis(settings.redis_url.get_secret_value()) as redis,
        worker_without_sweep(settings, poll_delay=0.5) as drainer,
    ):
        await listened_to(redis)
        before = len(heard)
        assert await ring(redis)
        await grown(heard, before + 1)
        await drainer.live_settled()  # and nothing found
        await set_collection(engine, "c")
        await redis.client_kill_filter(_type="pubsub")
        assert not await ring(redis)  # heard by nobody, and no job of its own
        await drained(sql)


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
        await drained(sql)
    gc.collect()  # the complaints come here, not in another test
