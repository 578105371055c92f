"""A commit that comes while a drain ends must not wait for the next sweep. Here there is no sweep."""

import asyncio
import contextlib
import gc
import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from arq.worker import func
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.doorbell import DIRTY_KEY, DRAIN_JOB, Doorbell, open_redis, ring
from shared.settings import Settings
from tests.drift import drained, drift
from tests.legacy_rows import seed, set_collection
from tests.race import freezing
from tests.twins.doorbell import drain_then_clear
from worker.main import arq_settings, build_worker
from worker.wakeable import WakeableWorker

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
    yield
    working.cancel()
    await asyncio.wait([working])
    await worker.close()


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
