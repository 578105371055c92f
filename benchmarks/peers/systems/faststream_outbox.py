"""faststream-outbox: a row for each event, published in the SQLAlchemy session of the write."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from faststream_outbox import OutboxBroker, make_outbox_table
from faststream_outbox.autovacuum import outbox_autovacuum_ddl
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from benchmarks.peers.systems.changes import LEGACY, Change, apply, as_event
from benchmarks.peers.systems.system import Applied

SUBSCRIBER = {
    "max_workers": 8,
    "fetch_batch_size": 100,
    "min_fetch_interval": 0.1,
    "max_fetch_interval": 1.0,
    "terminal_flush_batch_size": 100,
}
SETTINGS = {**SUBSCRIBER, "autovacuum": "as recommended"}
QUEUE = "collections"
TABLE = "faststream_outbox"
PLACES = {name: f":{name}" for name in ("collection_id", "project_id", "description")}
STATEMENTS = {kind: text(statement.format_map(PLACES)) for kind, statement in LEGACY.items()}


def connect(url: str) -> AsyncEngine:
    return create_async_engine(url.replace("://", "+asyncpg://", 1), pool_size=20)


def broker_on(engine: AsyncEngine) -> OutboxBroker:
    return OutboxBroker(engine, outbox_table=make_outbox_table(MetaData(), table_name=TABLE), logger=None)


async def install(url: str) -> None:
    """Create the table, with the recommended settings of autovacuum."""
    engine, metadata = connect(url), MetaData()
    make_outbox_table(metadata, table_name=TABLE)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(text(outbox_autovacuum_ddl(TABLE)))
    await engine.dispose()


class Writer:
    """Writes and publishes in one session."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)
        self._broker = broker_on(engine)

    async def write(self, change: Change) -> tuple[int, float]:
        async with self._sessions() as session, session.begin():
            event = await self._write_row(session, change)
            await self._broker.publish(event, queue=QUEUE, session=session)
        return change.number, time.time()

    async def write_alone(self, change: Change) -> None:
        async with self._sessions() as session, session.begin():
            await self._write_row(session, change)

    async def _write_row(self, session: AsyncSession, change: Change) -> dict[str, Any]:
        written = await session.execute(STATEMENTS[change.kind], change.values)
        return as_event(change, written.one())


@asynccontextmanager
async def writing(url: str) -> AsyncIterator[Writer]:
    engine = connect(url)
    yield Writer(engine)
    await engine.dispose()


async def work(url: str, applied: Applied) -> None:
    """Subscribe with a handler that applies; the table is the queue."""
    broker = broker_on(connect(url))
    async with asyncpg.create_pool(url, min_size=1, max_size=SUBSCRIBER["max_workers"]) as pool:

        async def handle(event: dict[str, Any]) -> None:
            await apply(pool, event)
            applied(event["number"])

        subscriber = broker.subscriber(QUEUE, **SUBSCRIBER)
        subscriber(handle)
        async with broker:
            await asyncio.Event().wait()
