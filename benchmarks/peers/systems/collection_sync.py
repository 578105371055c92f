"""collection-sync: the event in the transaction of the write, then a press of the bell, as its API does."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
from sqlalchemy.dialects.postgresql import asyncpg as dialect

from benchmarks.peers.systems.changes import Change
from benchmarks.peers.systems.with_asyncpg import Alone, write_row
from shared.events import EventType, Source
from shared.outbox import APPEND_EVENT
from shared.redis.client import open_redis
from shared.redis.deployment import Deployment, read_identity
from shared.redis.doorbell import Doorbell

SETTINGS: dict[str, Any] = {}
APPEND = APPEND_EVENT.compile(dialect=dialect.dialect())  # type: ignore[no-untyped-call]


async def install(_url: str) -> None:
    """Do nothing: the schema is migrated."""


class Writer(Alone):
    """Writes and appends on one connection, by the driver as most peers do."""

    def __init__(self, pool: asyncpg.Pool, doorbell: Doorbell) -> None:
        super().__init__(pool)
        self._doorbell = doorbell

    async def write(self, change: Change) -> tuple[int, float]:
        values = {
            "collection_id": change.collection_id,
            "event_type": EventType(f"collection.{change.kind}"),
            "source": Source.API,
            "traceparent": None,
        }
        async with self._pool.acquire() as connection:
            async with connection.transaction():
                await write_row(connection, change)
                event_id: int = await connection.fetchval(
                    str(APPEND), *(values[name] for name in APPEND.positiontup or ())
                )
            committed_at = time.time()
            self._doorbell.press()
            return event_id, committed_at


async def identity(pool: asyncpg.Pool) -> str:
    async with pool.acquire() as connection:
        return await read_identity(connection)


@asynccontextmanager
async def writing(url: str) -> AsyncIterator[Writer]:
    async with asyncpg.create_pool(url) as pool, open_redis(os.environ["REDIS_URL"]) as redis:
        doorbell = Doorbell(redis, Deployment(partial(identity, pool)))
        ringing = asyncio.create_task(doorbell.run())
        yield Writer(pool, doorbell)
        ringing.cancel()


async def work(_url: str, _applied: object) -> None:
    """Do nothing: `python -m worker` does the work, and its log is the report."""
