"""Runs that are started and driven inside the test's own process."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

import asyncpg
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.backfill_runs import BackfillOptions, BackfillRun, latest, start
from shared.tables.runs import backfill_runs
from tests.processes import HANG_SECONDS
from worker.backfill.chunk import Chunk, run_chunk
from worker.backfill.custody import RUNS
from worker.backfill.run import Watch, drive
from worker.custody import Custody

TOKEN = uuid.UUID(int=1)
RATE = 16
ROWS = RATE * 2 * HANG_SECONDS  # at this rate they last longer than anything that waits meanwhile
NEVER_OVERDUE = """
    CREATE FUNCTION put_off() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.heartbeat_at := NEW.heartbeat_at + interval '1 hour'; RETURN NEW; END $$;
    CREATE TRIGGER put_off BEFORE UPDATE OF heartbeat_at ON backfill_runs
        FOR EACH ROW EXECUTE FUNCTION put_off();
"""
# Which sessions wait for a lock, and what they are called.
WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name ~ $1
"""
SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ $1"
)
COMMAND = "^collection-sync backfill$"


async def started(engine: AsyncEngine, options: BackfillOptions | None = None) -> BackfillRun:
    """Create a run that nobody drives."""
    async with engine.begin() as connection:
        return await start(connection, options or BackfillOptions())


async def take(engine: AsyncEngine, run: BackfillRun) -> BackfillRun:
    """Become the run's driver, with TOKEN, to make its chunks one by one."""
    async with engine.begin() as connection:
        await connection.execute(update(backfill_runs).values(driver="test", driver_token=TOKEN))
    return run


async def chunk_of(engine: AsyncEngine, run: BackfillRun, most_rows: int | None = None) -> Chunk:
    """Make the next chunk of a run that was taken with TOKEN."""
    return await run_chunk(Custody(engine, RUNS, run, TOKEN), most_rows)


async def driven(
    engine: AsyncEngine, run_id: int, watch: Watch | None = None, custody: Custody[BackfillRun] | None = None
) -> BackfillRun:
    """Drive a run to its end."""
    return await drive(
        engine, run_id, interrupted=asyncio.Event(), doorbell=None, watch=watch, custody=custody
    )


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
) -> AsyncIterator[asyncio.Task[BackfillRun]]:
    """Drive a new run beside the block, and stop it at the block's end; yields what drives it."""
    run, interrupted = await started(engine, options), asyncio.Event()
    driving = asyncio.create_task(drive(engine, run.id, interrupted=interrupted, doorbell=None))
    try:
        yield driving
    finally:
        interrupted.set()
        await driving


async def current(engine: AsyncEngine) -> BackfillRun:
    """Return the latest run as it is now."""
    async with engine.connect() as connection:
        run = await latest(connection)
    assert run is not None
    return run


async def until_row(sql: asyncpg.Connection, condition: str) -> None:
    """Wait until the latest run's row fulfils an SQL condition."""
    statement = f"SELECT {condition} FROM backfill_runs ORDER BY id DESC LIMIT 1"  # noqa: S608 - a constant
    async with asyncio.timeout(HANG_SECONDS):
        while not await sql.fetchval(statement):
            await asyncio.sleep(0.01)


async def until_waiting(sql: asyncpg.Connection, application: str = "", sessions: int = 1) -> None:
    """Wait until so many sessions, of an application whose name matches, wait for a lock."""
    async with asyncio.timeout(HANG_SECONDS):
        while await sql.fetchval(WAITING, application) < sessions:
            await asyncio.sleep(0.005)
            await sql.execute("SELECT pg_stat_clear_snapshot()")  # or a transaction sees what it saw first


async def until_gone(sql: asyncpg.Connection, application: str = COMMAND) -> None:
    """Wait until the sessions of a process that was killed have ended: what it told may yet be done."""
    async with asyncio.timeout(HANG_SECONDS):
        while await sql.fetchval(SESSIONS, application):
            await asyncio.sleep(0.01)


async def never_overdue(sql: asyncpg.Connection) -> None:
    """Let no driver that has given a sign of life count as silent, however slow the machine is."""
    await sql.execute(NEVER_OVERDUE)
