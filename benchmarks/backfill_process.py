"""A backfill that runs beside what is measured, and can be made to stand still for a while."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg

from benchmarks.bench import require
from deploy.local.errors import LocalError
from deploy.local.programs import launch

BACKFILL_TIMEOUT_SECONDS = 60
PROCESSED = "SELECT coalesce(max(processed), 0) FROM backfill_runs"
IS_RUNNING = "SELECT EXISTS (SELECT FROM backfill_runs WHERE status = 'running' AND driver IS NOT NULL)"
IS_DRAINED = "SELECT NOT EXISTS (SELECT FROM outbox_events)"


@asynccontextmanager
async def backfilling(sql: asyncpg.Connection, *options: str) -> AsyncIterator[None]:
    """Let `python -m worker.backfill` run for as long as the block, and its events be settled after it.

    A second block goes on where the first one stopped; the options are the first one's.

    Raises:
        LocalError: it did not run all the time: there were too few rows.

    """
    before = await sql.fetchval(PROCESSED)
    words = ["--resume"] if before else options
    process = await launch("KILL", "worker.backfill", "--json", *words)
    try:
        await until(lambda: sql.fetchval(f"SELECT ({PROCESSED}) > $1", before), "the backfill begins")
        yield
        require(await sql.fetchval(IS_RUNNING), "the backfill has rows enough for the whole time")
    finally:
        process.send_signal(signal.SIGINT)  # it finishes its chunk
        await process.communicate()
    await until(lambda: sql.fetchval(IS_DRAINED), "the backfill's events are settled")


async def until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Return when it is so.

    Raises:
        LocalError: it takes too long.

    """
    try:
        async with asyncio.timeout(BACKFILL_TIMEOUT_SECONDS):
            while not await holds():  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise LocalError(f"Not within {BACKFILL_TIMEOUT_SECONDS} s: {what}.") from None
