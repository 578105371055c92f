"""What a backfill would do: found by the same statement, written nowhere."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.backfill_runs import BackfillOptions, plan
from worker.backfill.find import Found, Scope, find, prepare
from worker.backfill.pace import Pace
from worker.rest import rest

CHUNK_ROWS = 1_000

READ_ONLY = text("SET TRANSACTION READ ONLY")


@dataclass(slots=True)
class DryRun:
    """What was found so far, in rows; `planned` were there at the start. `enqueued` would have been."""

    planned: int
    processed: int = 0
    missing: int = 0
    mismatched: int = 0
    orphaned: int = 0
    finished: bool = False
    throttled_by: None = None  # reading needs no room in the outbox

    @property
    def enqueued(self) -> int:
        """Return how many events a run would append."""
        return self.missing + self.mismatched + self.orphaned

    @property
    def skipped(self) -> int:
        """Return how many rows need none."""
        return self.processed - self.enqueued

    def add(self, found: Found) -> None:
        """Count a chunk."""
        self.processed += found.rows
        self.missing += len(found.missing)
        self.mismatched += len(found.mismatched)
        self.orphaned += len(found.orphaned)


async def dry_run(
    engine: AsyncEngine,
    options: BackfillOptions,
    *,
    interrupted: asyncio.Event,
    watch: Callable[[DryRun], None] | None = None,
) -> DryRun:
    """Look at every row that a run with these options would look at, each chunk in a READ ONLY transaction.

    Each chunk is its own snapshot: live writes that go on may change what a later run finds.
    """
    async with engine.connect() as connection:
        await connection.execute(READ_ONLY)
        planned, end_key = await plan(connection, options.project_id)
    result, scope, cursor_key, pace = (
        DryRun(planned),
        Scope(options.project_id, end_key),
        None,
        Pace(options.rate),
    )
    row_limit = min(CHUNK_ROWS, pace.rows or CHUNK_ROWS)
    while not (result.finished or interrupted.is_set()):
        async with engine.connect() as connection:
            await connection.execute(READ_ONLY)
            await prepare(connection)
            found = await find(connection, scope, cursor_key, row_limit)
        result.add(found)
        cursor_key, result.finished = found.last_key, found.rows < row_limit
        if watch is not None:
            watch(result)
        pace.spend(found.rows)
        await rest(interrupted, pace.wait_seconds)
    return result
