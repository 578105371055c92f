"""Procrastinate: a job for each event, deferred on the connection of the write, with a lock for each key."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from procrastinate import App, PsycopgConnector
from procrastinate.tasks import Task
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from benchmarks.peers.systems.changes import LEGACY, Change, apply, as_event
from benchmarks.peers.systems.system import Applied

WORKER: dict[str, Any] = {"concurrency": 5, "delete_jobs": "always"}
SETTINGS = {**WORKER, "lock": "a key's"}
PLACES = {name: f"%({name})s" for name in ("collection_id", "project_id", "description")}
STATEMENTS = {kind: statement.format_map(PLACES) for kind, statement in LEGACY.items()}


def app_on(url: str) -> App:
    return App(connector=PsycopgConnector(conninfo=url, max_size=WORKER["concurrency"] + 5))


async def install(url: str) -> None:
    async with app_on(url).open_async() as app:
        await app.schema_manager.apply_schema_async()


class Writer:
    """Writes and defers on one connection."""

    def __init__(self, pool: AsyncConnectionPool, task: Task[..., Any, Any]) -> None:
        self._pool = pool
        self._task = task

    async def write(self, change: Change) -> tuple[int, float]:
        async with self._pool.connection() as connection:
            event = await self._write_row(connection, change)
            job = self._task.configure(lock=change.collection_id, connection=connection)
            await job.defer_async(event=event)
            await connection.commit()
            return change.number, time.time()

    async def write_alone(self, change: Change) -> None:
        async with self._pool.connection() as connection:
            await self._write_row(connection, change)

    async def _write_row(self, connection: AsyncConnection, change: Change) -> dict[str, Any]:
        written = await connection.execute(STATEMENTS[change.kind], change.values)
        return as_event(change, await written.fetchone())


@asynccontextmanager
async def writing(url: str) -> AsyncIterator[Writer]:
    async def handle(event: dict[str, Any]) -> None: ...

    async with app_on(url).open_async() as app, AsyncConnectionPool(url, max_size=10) as pool:
        yield Writer(pool, app.task(handle, name="apply"))


async def work(url: str, applied: Applied) -> None:
    async with app_on(url).open_async() as app, asyncpg.create_pool(url) as pool:

        async def handle(event: dict[str, Any]) -> None:
            await apply(pool, event)
            applied(event["number"])

        app.task(handle, name="apply")
        await app.run_worker_async(install_signal_handlers=False, **WORKER)
