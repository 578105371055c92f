"""Runs that are started and driven inside the test's own process."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

import asyncpg
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.backfill_runs import BackfillOptions, BackfillRun, latest, start
from shared.run_tables import backfill_runs
from worker.backfill.drive import Watch, drive

TOKEN = uuid.UUID(int=1)


async def started(engine: AsyncEngine, options: BackfillOptions | None = None) -> BackfillRun:
    """Create a run that nobody drives."""
    async with engine.begin() as connection:
        return await start(connection, options or BackfillOptions())


async def take(engine: AsyncEngine, run: BackfillRun) -> BackfillRun:
    """Become the run's driver, with TOKEN, to make its chunks one by one."""
    async with engine.begin() as connection:
        await connection.execute(update(backfill_runs).values(driver="test", driver_token=TOKEN))
    return run


async def driven(engine: AsyncEngine, run_id: int, watch: Watch | None = None) -> BackfillRun:
    """Drive a run to its end."""
    return await drive(engine, run_id, interrupted=asyncio.Event(), doorbell=None, watch=watch)


async def backfilled(engine: AsyncEngine, options: BackfillOptions | None = None) -> BackfillRun:
    """Create a run and drive it to its end."""
    run = await started(engine, options)
    run = await driven(engine, run.id)
    assert run.status == "finished"
    assert run.processed == run.enqueued + run.skipped
    return run


@contextlib.asynccontextmanager
async def being_driven(
    engine: AsyncEngine, options: BackfillOptions | None = None
) -> AsyncIterator[BackfillRun]:
    """Drive a new run beside the block, and stop it at the block's end."""
    run, interrupted = await started(engine, options), asyncio.Event()
    driving = asyncio.create_task(drive(engine, run.id, interrupted=interrupted, doorbell=None))
    try:
        yield run
    finally:
        interrupted.set()
        await driving


async def current(engine: AsyncEngine) -> BackfillRun:
    """Return the latest run as it is now."""
    async with engine.connect() as connection:
        run = await latest(connection)
    assert run is not None
    return run


async def until_row(sql: asyncpg.Connection, condition: str, seconds: float = 10) -> None:
    """Wait until the latest run's row fulfils an SQL condition."""
    statement = f"SELECT {condition} FROM backfill_runs ORDER BY id DESC LIMIT 1"  # noqa: S608 - a constant
    async with asyncio.timeout(seconds):
        while not await sql.fetchval(statement):
            await asyncio.sleep(0.01)
