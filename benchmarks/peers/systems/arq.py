"""arq: a job for each event, enqueued in Redis after the COMMIT of the write."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.typing import WorkerCoroutine
from arq.worker import Worker, func

from benchmarks.peers.systems.changes import Change, apply
from benchmarks.peers.systems.system import Applied
from benchmarks.peers.systems.with_asyncpg import Alone, write_row

SETTINGS: dict[str, Any] = {}


def redis_settings() -> RedisSettings:
    return RedisSettings.from_dsn(os.environ["REDIS_URL"])


async def install(_url: str) -> None:
    """Do nothing: it has no tables."""


class Writer(Alone):
    """Writes on a connection, then enqueues in Redis."""

    def __init__(self, pool: asyncpg.Pool, redis: ArqRedis) -> None:
        super().__init__(pool)
        self._redis = redis

    async def write(self, change: Change) -> tuple[int, float]:
        async with self._pool.acquire() as connection:
            async with connection.transaction():
                event = await write_row(connection, change)
            committed_at = time.time()
            await self._redis.enqueue_job("apply", event)
            return change.number, committed_at


@asynccontextmanager
async def writing(url: str) -> AsyncIterator[Writer]:
    async with asyncpg.create_pool(url) as pool, await create_pool(redis_settings()) as redis:
        yield Writer(pool, redis)


async def work(url: str, applied: Applied, **settings: Any) -> None:  # noqa: ANN401 - arq's own
    """Run a worker, by its defaults but for these settings."""
    async with asyncpg.create_pool(url) as pool:

        async def handle(_context: dict[Any, Any], event: dict[str, Any]) -> None:
            await apply(pool, event)
            applied(event["number"])

        worker = Worker(
            [func(cast("WorkerCoroutine", handle), name="apply")],
            redis_settings=redis_settings(),
            handle_signals=False,
            **settings,
        )
        await worker.async_run()
