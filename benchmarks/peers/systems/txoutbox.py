"""txoutbox: a message for each event with the collection as its key, relayed in order, woken by NOTIFY."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from txoutbox import OutboxMessage, Relay, RelayConfig
from txoutbox.adapters.postgres import PostgresStorage

from benchmarks.peers.systems.changes import Change, apply
from benchmarks.peers.systems.system import Applied
from benchmarks.peers.systems.with_asyncpg import Alone, write_row

STORAGE = {"notify_channel": "txoutbox", "delete_on_ack": True}
RELAY = {"batch_size": 100, "concurrency": 10}
SETTINGS = {**STORAGE, **RELAY}


async def install(url: str) -> None:
    async with asyncpg.create_pool(url) as pool:
        await PostgresStorage(pool, **STORAGE).create_schema()


class Writer(Alone):
    """Writes and inserts the message on one connection."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        super().__init__(pool)
        self._storage = PostgresStorage(pool, **STORAGE)

    async def write(self, change: Change) -> tuple[int, float]:
        async with self._pool.acquire() as connection:
            async with connection.transaction():
                event = await write_row(connection, change)
                await self._storage.insert(connection, "collections", event, key=change.collection_id)
            return change.number, time.time()


@asynccontextmanager
async def writing(url: str) -> AsyncIterator[Writer]:
    async with asyncpg.create_pool(url) as pool:
        yield Writer(pool)


async def work(url: str, applied: Applied) -> None:
    async with asyncpg.create_pool(url, max_size=RELAY["concurrency"] + 3) as pool:
        storage = PostgresStorage(pool, **STORAGE)

        async def publish(message: OutboxMessage) -> None:
            event = message.json()
            await apply(pool, event)
            applied(event["number"])

        relay = Relay(storage, publish, config=RelayConfig(**RELAY))
        async with await storage.listen(relay.wake):
            await relay.run()
