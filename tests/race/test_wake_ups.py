"""The one moment at which a wake-up can get lost: between a drain's scan and the taking of the job."""

import asyncpg
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.redis.client import open_redis
from shared.redis.deployment import Names
from shared.redis.doorbell import dismiss, ring
from shared.settings import Settings
from tests.doorbell.place import names_of
from tests.legacy_rows import set_collection
from worker.main import arq_settings, build_worker, stop


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_commit_at_the_moment_the_job_is_taken_is_drained_or_rings_again(
    moment: str,
    settings: Settings,
    engine: AsyncEngine,
    sql: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = {**arq_settings(settings), "handle_signals": False}
    worker, ctx = build_worker(settings, arguments), arguments["ctx"]
    names = await names_of(engine)
    await ctx["deployment"].learn()
    async with open_redis(settings.redis_url.get_secret_value()) as redis:

        async def commit() -> None:
            await set_collection(engine, "c", "text")
            await ring(redis, names)

        async def taking(pool: Redis, names: Names) -> bool:
            if moment == "before":
                await commit()
            was_there = await dismiss(pool, names)
            if moment == "after":
                await commit()
            return was_there

        for user in ("worker.doorbell.queue_watch", "tests.twins.doorbell"):
            monkeypatch.setattr(f"{user}.dismiss", taking)
        await ring(redis, names)
        await worker._take_up()  # noqa: SLF001 - as it polls
        await ctx["drainer"].live_settled()
        is_drained = await sql.fetchval("SELECT count(*) FROM outbox_events") == 0
        assert is_drained or await redis.zcard(names.queue) == 1
    await stop(ctx)
    await worker.pool.aclose(close_connection_pool=True)
