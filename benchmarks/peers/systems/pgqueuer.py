"""PgQueuer: a job for each event, enqueued in the transaction of the write."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.peers.systems.changes import Change, apply, as_bytes
from benchmarks.peers.systems.system import Applied
from benchmarks.peers.systems.with_asyncpg import Alone, write_row

RUN: dict[str, Any] = {"batch_size": 100, "max_concurrent_tasks": 200}
HANDLERS = 10  # connections
SETTINGS = {**RUN, "connections of handlers": HANDLERS, "autovacuum": "as recommended"}


async def install(url: str) -> None:
    """Do what `pgq install` and `pgq autovac` do."""
    connection = await asyncpg.connect(url)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    await queries.optimize_autovacuum()
    await connection.close()


class Writer(Alone):
    """Writes and enqueues on one connection."""

    async def write(self, change: Change) -> tuple[int, float]:
        async with self._pool.acquire() as connection:
            async with connection.transaction():
                event = await write_row(connection, change)
                await Queries(AsyncpgDriver(connection)).enqueue("apply", as_bytes(event))
            return change.number, time.time()


@asynccontextmanager
async def writing(url: str) -> AsyncIterator[Writer]:
    async with asyncpg.create_pool(url) as pool:
        yield Writer(pool)


async def work(url: str, applied: Applied) -> None:
    """Run the queue on a connection of its own, as recommended, and handlers on a pool."""
    async with asyncpg.create_pool(url, max_size=HANDLERS) as pool:
        queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))

        async def handle(job: Job) -> None:
            event = json.loads(job.payload)
            await apply(pool, event)
            applied(event["number"])

        queuer.entrypoint("apply")(handle)
        await queuer.run(**RUN)
