"""The way of a rollback through the outbox, the target by `id` and the guard by `collection_id`.

Every step is a transaction of its own, so it can be interrupted, killed and repeated at any moment, and needs
the same memory for any number of rows.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.phase.now import phase_now
from worker.command_line.run import CommandError
from worker.rollback import statements
from worker.rollback.busy import refuse_while_busy
from worker.rollback.phase import refuse_while_moved, turn_back
from worker.rollback.record import record_beginning, record_end
from worker.rollback.tally import Rollback

logger = structlog.get_logger(__name__)

CHUNK_ROWS = 2_000
LOG_SECONDS = 1

Watch = Callable[[Rollback], None]


class RollbackInterruptedError(CommandError):
    """A signal came between two chunks; what was done until then is done for good."""

    def __init__(self, tally: Rollback) -> None:
        done = "looked at" if tally.dry_run else "removed"
        super().__init__(f"Stopped after {tally.removed:,} rows were {done}. Run the same again to go on.")


@dataclass(slots=True)
class Walk:
    """One way through the outbox, the target and the guard, and what it has counted so far."""

    engine: AsyncEngine
    interrupted: asyncio.Event
    watch: Watch
    tally: Rollback
    logged_at: float = field(default_factory=time.monotonic)
    record: int = 0

    async def cancel_backfills(self) -> None:
        """End every backfill, so that none goes on and none is taken for done, and void every proof.

        The phase that rested on it goes back to Outbox in the same transaction.
        """
        async with self.changing() as connection:
            await turn_back(connection, self.tally.phase)
            await connection.execute(statements.CANCEL_BACKFILLS)
            self.record = await record_beginning(connection)
        logger.info("rollback_started")

    async def discard_events(self) -> None:
        """Delete what was pending at the start.

        Not behind the lock on the guard: a batch may hold events while it waits for the guard.
        """
        async with self.looking() as connection:
            newest_id = (await connection.execute(statements.NEWEST_EVENT)).scalar_one()
        chunk = {"newest_id": newest_id, "chunk_rows": CHUNK_ROWS}
        discarded = 0 if newest_id is None else CHUNK_ROWS
        while discarded:
            async with self.changing(behind_lock=False) as connection:
                discarded = (await connection.execute(statements.DISCARD_EVENTS, chunk)).rowcount
            self.tally.discarded_events += discarded
            self.show()

    async def remove_rows(self) -> None:
        """Take away what is ours with its guards, and count and list the rest."""
        async for chunk in self.rows():
            async with self.changing() as connection:
                removed = (await connection.execute(statements.REMOVE_ROWS, chunk)).rowcount
                kept = (await connection.execute(statements.JUDGE_ROWS, chunk)).all()
            self.tally.removed += removed
            self.tally.keep(kept)
            self.show()

    async def forget_guards(self) -> None:
        """Delete the guards without a row or an event; the last transaction also finds nothing at work."""
        after_key: str | None = None
        while True:
            async with self.changing() as connection:
                bounds = {"after_key": after_key, "chunk_rows": CHUNK_ROWS}
                upto_key = (await connection.execute(statements.NEXT_GUARDS, bounds)).scalar_one()
                if upto_key is None:
                    await record_end(connection, self.record)
                    return
                chunk = {"after_key": after_key, "upto_key": upto_key}
                await connection.execute(statements.FORGET_GUARDS, chunk)
            after_key = upto_key

    async def look(self) -> None:
        """Count what would be discarded, removed and kept."""
        async with self.looking() as connection:
            self.tally.phase = await phase_now(connection)
            self.tally.discarded_events = (await connection.execute(statements.COUNT_EVENTS)).scalar_one()
        async for chunk in self.rows():
            async with self.looking() as connection:
                rows = (await connection.execute(statements.JUDGE_ROWS, chunk)).all()
            staying = [row for row in rows if row.kind != "ours"]
            self.tally.removed += len(rows) - len(staying)
            self.tally.keep(staying)
            self.show()

    async def rows(self) -> AsyncIterator[dict[str, int]]:
        """Cut the rows that the target has now into chunks by id, the first bound exclusive."""
        async with self.looking() as connection:
            last_id = (await connection.execute(statements.LAST_ROW)).scalar_one()
        after_id = -(2**31)  # below any id: ids are 32-bit integers
        while last_id is not None:
            bounds = {"after_id": after_id, "last_id": last_id, "chunk_rows": CHUNK_ROWS}
            async with self.looking() as connection:
                upto_id = (await connection.execute(statements.NEXT_ROWS, bounds)).scalar_one()
            if upto_id is None:
                return
            yield {"after_id": after_id, "upto_id": upto_id}
            after_id = upto_id

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection whose transaction can change nothing."""
        self.heed_interruption()
        async with self.engine.connect() as connection:
            await connection.execute(statements.READ_ONLY)
            await connection.execute(statements.PREPARE)
            yield connection

    @asynccontextmanager
    async def changing(self, *, behind_lock: bool = True) -> AsyncIterator[AsyncConnection]:
        """Lend a connection for a chunk that no batch can come between, and commit it."""
        self.heed_interruption()
        async with self.engine.begin() as connection:
            await connection.execute(statements.PREPARE)
            if behind_lock:
                await connection.execute(statements.KEEP_BATCHES_OUT)
            phase = await refuse_while_moved(connection)
            self.tally.phase = self.tally.phase or phase
            await refuse_while_busy(connection)
            yield connection

    def heed_interruption(self) -> None:
        """Raise RollbackInterruptedError when a signal has come."""
        if self.interrupted.is_set():
            raise RollbackInterruptedError(self.tally)

    def show(self) -> None:
        """Call the watcher after each chunk, and log once a second."""
        self.watch(self.tally)
        if time.monotonic() - self.logged_at >= LOG_SECONDS:
            self.logged_at = time.monotonic()
            logger.info("rollback_chunk", **self.tally.counts())
