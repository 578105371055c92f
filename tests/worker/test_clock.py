"""A worker whose clock is set back: arq plans its cron jobs by the time of day."""

import asyncio
import signal
from pathlib import Path

import asyncpg
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import Settings
from tests.chaos.movable_clock import MovableClock
from tests.drift import drained
from tests.legacy_rows import set_collection
from tests.processes import HANG_SECONDS, environment, running

HEALTH_KEYS = "collection_sync:worker:*"
HOUR = 3600


async def test_a_clock_that_is_set_back_stops_neither_the_sweep_nor_the_health_key(
    redis_url: str, settings: Settings, engine: AsyncEngine, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    clock = MovableClock(tmp_path / "clock")
    start = ["-m", "tests.chaos.movable_clock", str(clock.file), "worker"]
    env = environment(settings.database_url.get_secret_value(), redis_url)
    async with Redis.from_url(redis_url) as redis:
        with running(start, env) as worker:
            await worker.wait_for("worker_started")
            await set_collection(engine, "before")  # nobody rings
            await drained(sql)
            async with asyncio.timeout(HANG_SECONDS):
                while not await redis.keys(HEALTH_KEYS):
                    await asyncio.sleep(0.01)
            worker.signal(signal.SIGSTOP)
            clock.move(-HOUR)
            await redis.delete(*await redis.keys(HEALTH_KEYS))  # as if it had expired
            worker.signal(signal.SIGCONT)
            await set_collection(engine, "after")
            await drained(sql)
            async with asyncio.timeout(HANG_SECONDS):
                while not await redis.keys(HEALTH_KEYS):
                    await asyncio.sleep(0.01)
