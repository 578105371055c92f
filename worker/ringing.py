"""The doorbell of a command that appends events."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from shared.doorbell import BULK_CHANNEL, Doorbell, open_redis
from shared.settings import CommandSettings


@contextlib.asynccontextmanager
async def doorbell_of(settings: CommandSettings) -> AsyncIterator[Doorbell | None]:
    """Yield a doorbell that rings while the block lasts; None without Redis: workers look by themselves."""
    if settings.redis_url is None:
        yield None
        return
    redis = open_redis(settings.redis_url.get_secret_value())
    doorbell = Doorbell(redis, BULK_CHANNEL)  # commands append no user's write
    ringing = asyncio.create_task(doorbell.run())
    try:
        yield doorbell
    finally:
        ringing.cancel()
        await asyncio.gather(ringing, return_exceptions=True)
        await redis.aclose()
