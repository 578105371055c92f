"""The one moment at which a wake-up can get lost: between a drain's scan and the clearing of the flag."""

from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.doorbell import DIRTY_KEY, QUEUE_NAME, open_redis, ring
from shared.settings import Settings
from tests.legacy_rows import set_collection
from worker import main
from worker.drainer import Drainer


class Witness:
    """A Redis that lets something happen right before or right after the flag is cleared."""

    def __init__(self, redis: Redis, moment: str, happens: Callable[[], Awaitable[None]]) -> None:
        self._redis = redis
        self._moment = moment
        self._happens = happens

    async def delete(self, key: str) -> None:
        assert key == DIRTY_KEY
        if self._moment == "before":
            await self._happens()
        await self._redis.delete(key)
        if self._moment == "after":
            await self._happens()


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_commit_at_the_moment_of_the_clearing_is_drained_or_rings_again(
    moment: str, settings: Settings, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    drainer = Drainer(engine)
    async with open_redis(settings.redis_url.get_secret_value()) as redis:
        await ring(redis)
        await redis.zpopmin(QUEUE_NAME)  # as the worker does that runs the job now

        async def commit() -> None:
            await set_collection(engine, "c", "text")
            await ring(redis)

        await main.drain_outbox({"drainer": drainer, "redis": Witness(redis, moment, commit)})
        await drainer.live_settled()
        await drainer.stop()
        is_drained = await sql.fetchval("SELECT count(*) FROM outbox_events") == 0
        assert is_drained or await redis.zcard(QUEUE_NAME) == 1
