"""The doorbell of a command that appends events."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.redis.client import REDIS_TIMEOUT_SECONDS, open_redis
from shared.redis.deployment import Deployment
from shared.redis.doorbell import Doorbell
from shared.settings import CommandSettings


@contextlib.asynccontextmanager
async def doorbell_of(settings: CommandSettings, engine: AsyncEngine) -> AsyncIterator[Doorbell | None]:
    """Yield a doorbell that rings while the block lasts; None without Redis: workers sweep without a ring."""
    if settings.redis_url is None:
        yield None
        return
    redis = open_redis(settings.redis_url.get_secret_value())
    doorbell = Doorbell(redis, Deployment.of(engine), "bulk")  # commands append no user's write
    ringing = asyncio.create_task(doorbell.run())
    try:
        yield doorbell
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REDIS_TIMEOUT_SECONDS):
                await doorbell.rung()
    finally:
        ringing.cancel()
        await asyncio.gather(ringing, return_exceptions=True)
        await redis.aclose()
