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
from arq.connections import RedisSettings
from arq.worker import Worker, func
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.redis.client import open_redis
from shared.redis.deployment import Deployment, Names
from shared.redis.doorbell import DRAIN_JOB, Doorbell, dismiss, ring
from shared.redis.outage import Fault
from shared.settings import Settings
from tests.doorbell.patience import be_patient_with_redis
from tests.doorbell.place import listened_to, names_of, queued
from tests.drift import drained, drift
from tests.legacy_rows import seed, set_collection
from tests.processes import HANG_SECONDS
from tests.race import freezing
from tests.twins.doorbell import drain_then_dismiss
from worker.doorbell.arq_worker import WakeableWorker
from worker.doorbell.listener import ANSWER_SECONDS, Listener
from worker.doorbell.queue_watch import QueueWatch, Seen
from worker.drainer import Drainer
from worker.main import arq_settings, build_worker, drain_outbox, stop

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
async def doorbell(
    settings: Settings, engine: AsyncEngine, sql: asyncpg.Connection
) -> AsyncIterator[Doorbell]:
    await seed(sql)
    async with open_redis(settings.redis_url.get_secret_value()) as redis:
        doorbell = Doorbell(redis, Deployment.of(engine))
        ringing = asyncio.create_task(doorbell.run())
        yield doorbell
        ringing.cancel()
        await asyncio.wait([ringing])


@contextlib.asynccontextmanager
async def worker_without_sweep(settings: Settings, **changed: Any) -> AsyncIterator[Drainer]:  # noqa: ANN401 - arq's own
    """Run the product's worker in this process, but for the safety net; yields its drainer."""
    arguments = arq_settings(settings) | {"on_startup": None, "handle_signals": False}
    worker = build_worker(settings, arguments | changed)
    await arguments["ctx"]["deployment"].learn()
    working = asyncio.create_task(worker.main())
    try:
        yield arguments["ctx"]["drainer"]
    finally:
        working.cancel()
        await asyncio.wait([working])
        await worker.close()


async def emptied(redis: Redis) -> None:
    """Return when no job is queued."""
    async with asyncio.timeout(HANG_SECONDS):
        while await queued(redis):
            await asyncio.sleep(0.01)


async def deaf(_listener: Listener) -> None:
    """Hear no message, so that jobs are all that wakes the worker."""
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
        monkeypatch.setattr(Listener, "listen", deaf)
    async with worker_without_sweep(settings, poll_delay=0.02):
        for _ in range(BURSTS):
            await burst(engine, doorbell)
            await drained(sql)
    assert await drift(sql) == []


@pytest.mark.long  # tests/race/test_wake_ups.py convicts it without chance
async def test_the_bursts_convict_a_drain_that_takes_the_job_after_its_scan(
    settings: Settings,
    engine: AsyncEngine,
    sql: asyncpg.Connection,
    doorbell: Doorbell,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Listener, "listen", deaf)
    monkeypatch.setattr(WakeableWorker, "_take_up", drain_then_dismiss)
    async with worker_without_sweep(settings, poll_delay=0.02):
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


async def test_the_rings_of_a_moment_get_one_answer(
    settings: Settings, engine: AsyncEngine, redis_url: str
) -> None:
    names = await names_of(engine)
    async with open_redis(redis_url) as redis, worker_without_sweep(settings, poll_delay=NEVER_SECONDS):
        await listened_to(redis)
        await redis.config_resetstat()
        began = time.monotonic()
        for _ in range(50):
            await ring(redis, names)
            await asyncio.sleep(0.003)
        moments = (time.monotonic() - began) / ANSWER_SECONDS
        await emptied(redis)
        commands = await redis.info("commandstats")
    assert commands["cmdstat_zrem"]["calls"] <= moments + 2


async def test_a_job_whose_ring_was_heard_is_left_to_its_answer(
    settings: Settings,
    engine: AsyncEngine,
    redis_url: str,
    heard: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bool] = []
    may_poll, may_answer = asyncio.Event(), asyncio.Event()
    look, take_up, names = QueueWatch.look, WakeableWorker._take_up, await names_of(engine)  # noqa: SLF001

    async def noting_look(watch: QueueWatch, names: Names | None, *, leave_ours: bool) -> Seen:
        found = await look(watch, names, leave_ours=leave_ours)
        seen.append(found.is_rung)
        return found

    async def late_poll(worker: WakeableWorker) -> Fault | None:
        await may_poll.wait()
        return await take_up(worker)

    async def late_answer(redis: Redis, names: Names) -> None:
        await may_answer.wait()
        await dismiss(redis, names)

    monkeypatch.setattr(QueueWatch, "look", noting_look)
    monkeypatch.setattr(WakeableWorker, "_take_up", late_poll)
    monkeypatch.setattr("worker.doorbell.listener.dismiss", late_answer)
    async with open_redis(redis_url) as redis, worker_without_sweep(settings, poll_delay=0.01):
        await listened_to(redis)
        before = len(heard)
        await ring(redis, names)
        await grown(heard, before + 1)
        may_poll.set()
        async with asyncio.timeout(HANG_SECONDS):
            while len(seen) < 3:
                await asyncio.sleep(0.002)
        assert await queued(redis) == 1  # for every poll to see
        may_answer.set()
        await emptied(redis)
    assert not any(seen)


async def test_a_ring_that_comes_while_nobody_listens_finds_the_job_of_the_one_before_it(
    settings: Settings,
    engine: AsyncEngine,
    sql: asyncpg.Connection,
    heard: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await seed(sql)
    names = await names_of(engine)
    monkeypatch.setattr("worker.doorbell.listener.RESUBSCRIBE_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr("worker.doorbell.listener.ANSWER_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr("worker.doorbell.arq_worker.DIRECT_DRAIN_SECONDS", NEVER_SECONDS)
    async with (
        open_redis(settings.redis_url.get_secret_value()) as redis,
        worker_without_sweep(settings, poll_delay=0.5) as drainer,
    ):
        await listened_to(redis)
        before = len(heard)
        await ring(redis, names)
        await grown(heard, before + 1)
        await drainer.live_settled()  # and nothing found
        await set_collection(engine, "c")
        await redis.client_kill_filter(_type="pubsub")
        await drained(sql)


@pytest.mark.parametrize("looks_again", [True, False])
async def test_a_ring_during_the_job_of_arq_s_own_worker_is_made_up_for_after_it(
    settings: Settings, engine: AsyncEngine, sql: asyncpg.Connection, redis_url: str, *, looks_again: bool
) -> None:
    """The job of such a ring goes with the one that is running; who does not look again loses it."""
    await seed(sql)
    arguments, names = arq_settings(settings), await names_of(engine)
    drainer = arguments["ctx"]["drainer"]
    async with open_redis(redis_url) as redis:

        async def job(ctx: dict[str, Any]) -> None:
            await drain_outbox(ctx)
            await drainer.live_settled()
            await set_collection(engine, "c")
            await ring(redis, names)

        await ring(redis, names)
        worker = Worker(
            [func(job, name=DRAIN_JOB, keep_result=0)],
            redis_settings=RedisSettings.from_dsn(redis_url),
            queue_name=names.queue,
            burst=True,
            handle_signals=False,
            poll_delay=0.01,
            **{
                name: arguments[name] for name in ("ctx", "job_serializer", "job_deserializer", "keep_result")
            },
            **({"after_job_end": arguments["after_job_end"]} if looks_again else {}),
        )
        await asyncio.wait_for(worker.async_run(), HANG_SECONDS)
        await drainer.live_settled()
        assert not await queued(redis)
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == (0 if looks_again else 1)
    await worker.pool.aclose(close_connection_pool=True)
    await stop(arguments["ctx"])


# redis-py complains when a connection breaks while it cleans up.
@pytest.mark.filterwarnings("ignore:.*Redis.__del__:pytest.PytestUnraisableExceptionWarning")
async def test_connections_that_break_at_any_moment_cost_the_worker_no_job(
    settings: Settings,
    engine: AsyncEngine,
    sql: asyncpg.Connection,
    doorbell: Doorbell,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Listener, "listen", deaf)
    names = await names_of(engine)
    async with (
        open_redis(settings.redis_url.get_secret_value()) as redis,
        worker_without_sweep(settings, poll_delay=0.01),
    ):
        for _ in range(BREAKS):
            await ring(redis, names)
            await asyncio.sleep(random.uniform(0, 0.015))  # noqa: S311 - chance, not a secret
            await redis.client_kill_filter(_type="normal", skipme=True)
        monkeypatch.setattr("worker.doorbell.arq_worker.DIRECT_DRAIN_SECONDS", NEVER_SECONDS)
        await set_collection(engine, "c")
        doorbell.press()
        await drained(sql)
    gc.collect()  # the complaints come here, not in another test
