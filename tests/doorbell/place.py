"""Where one database's rings are found in Redis, and names for tests that need no database."""

import asyncio

import asyncpg
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.redis.deployment import Deployment, Lane, Names, read_identity
from tests.processes import HANG_SECONDS

NOWHERE = Names("0123456789abcdef")


def nowhere() -> Deployment:
    """Return what is known at once, and of no database."""

    async def read() -> str:
        return NOWHERE.identity

    return Deployment(read)


async def names_of(database: AsyncEngine | asyncpg.Connection) -> Names:
    """Return the names that its processes use."""
    if isinstance(database, AsyncEngine):
        return await Deployment.of(database).learn()
    return Names(await read_identity(database))


async def queued(redis: Redis) -> int:
    """Return how many jobs there are, whichever database's."""
    return sum([await redis.zcard(key) for key in await redis.keys("collection_sync:*:queue")])


async def rung(redis: Redis) -> None:
    """Return when a job is queued."""
    async with asyncio.timeout(HANG_SECONDS):
        while not await queued(redis):
            await asyncio.sleep(0.01)


async def listened_to(redis: Redis, lane: Lane = "live") -> None:
    """Return when a worker hears rings, whichever database's."""
    pattern = Names("*").channel(lane)
    async with asyncio.timeout(HANG_SECONDS):
        while not await redis.pubsub_channels(pattern):
            await asyncio.sleep(0.01)
