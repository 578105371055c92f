"""Rollback: takes the rows away that this system made and nobody enriched; the legacy table stays as it is.

It walks the target by `id` and then the guard by `collection_id`, a bounded chunk a transaction, so it
can be interrupted, killed and repeated at any moment, and needs the same memory for any number of rows.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.backfill_runs import DRIVEN_SECONDS
from shared.planner import ROLLBACK, for_transaction
from shared.postgres.database import is_pooled
from worker.command_line.run import CommandError
from worker.rollback.record import record_beginning, record_end

logger = structlog.get_logger(__name__)

CHUNK_ROWS = 2_000
LISTED_ROWS = 20
LOG_SECONDS = 1
WORKER = "collection-sync worker"  # what its sessions are called, see worker/main.py

# Users of the chunk's rows wait for us, so we do not wait long for others.
PREPARE = text(for_transaction(ROLLBACK | {"lock_timeout": "5s"}))
READ_ONLY = text("SET TRANSACTION READ ONLY")

# Until the chunk is committed no batch can stand between a guard and its row when both are taken away.
# Readers pass.
KEEP_BATCHES_OUT = text("LOCK TABLE applied_versions IN SHARE ROW EXCLUSIVE MODE")

FIND_WORKERS = text("""
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = :worker
    ORDER BY pid
""")
# A pooler's session bears the name of whoever had it last, and an idle worker has none. Its heart beats each
# second; one that is frozen for longer than this is not found.
FIND_BEATING_WORKERS = text("""
    SELECT name FROM worker_processes
    WHERE ended_at IS NULL AND heartbeat_at > clock_timestamp() - interval '10 seconds'
    ORDER BY name
""")

# One at most: backfill_runs_one_at_a_time. Where nobody drives it, because its driver was killed or it
# waits for a worker, it shows no sign of life.
FIND_BACKFILL = text("""
    SELECT id FROM backfill_runs
    WHERE status = 'running'
        AND heartbeat_at > clock_timestamp() - make_interval(secs => :driven_seconds)
""")

# Finished ones too: what they brought is taken away, so nothing may rely on them any more.
CANCEL_BACKFILLS = text("""
    UPDATE backfill_runs
    SET status = 'cancelled', throttled_by = NULL, finished_at = coalesce(finished_at, clock_timestamp())
    WHERE status <> 'cancelled'
""")

# Served by outbox_events_pkey. What a batch has in hand at this moment is passed over.
COUNT_EVENTS = text("SELECT count(*) FROM outbox_events")
NEWEST_EVENT = text("SELECT max(id) FROM outbox_events")
DISCARD_EVENTS = text("""
    DELETE FROM outbox_events
    WHERE id = ANY(ARRAY(
        SELECT id FROM outbox_events
        WHERE id <= :newest_id
        ORDER BY id
        LIMIT :chunk_rows
        FOR UPDATE SKIP LOCKED
    ))
""")

# Json has no `=`, and what is in it may not even be valid jsonb; as text it shows whether it is empty.
EMPTY = r"^\s*(\[\s*\]|\{\s*\}|null)\s*$"
ENRICHABLE = ("tags", "linked_project_question_ids", "linked_project_hypothesis_ids")
HOLDS_ANYTHING = {
    column: f"coalesce(CAST(target.{column} AS text) !~ '{EMPTY}', false)" for column in ENRICHABLE
}
IS_ENRICHED = " OR ".join(HOLDS_ANYTHING.values())
WHAT_HOLDS = ", ".join(f"CASE WHEN {holds} THEN '{name}' END" for name, holds in HOLDS_ANYTHING.items())
IN_CHUNK = "target.id > :after_id AND target.id <= :upto_id"

# Served by project_collections_pkey.
LAST_ROW = text("SELECT max(id) FROM project_collections")
NEXT_ROWS = text("""
    SELECT max(id) FROM (
        SELECT id FROM project_collections
        WHERE id > :after_id AND id <= :last_id
        ORDER BY id
        LIMIT :chunk_rows
    ) AS chunk
""")

# Served by the primary keys of project_collections and applied_versions. Whether a row is enriched is
# judged again under its lock, so what somebody adds at this moment stays. Row and guard go together.
REMOVE_ROWS = text(f"""
    WITH removed AS (
        DELETE FROM project_collections AS target
        USING applied_versions AS guard
        WHERE {IN_CHUNK}
            AND guard.collection_id = target.collection_id
            AND guard.project_id = target.project_id
            AND coalesce(guard.row_id = target.id, true)
            AND NOT (guard.is_deleted OR guard.found_row OR {IS_ENRICHED})
        RETURNING target.collection_id
    )
    DELETE FROM applied_versions AS guard USING removed WHERE guard.collection_id = removed.collection_id
""")  # noqa: S608 - constants

# Served by the primary keys of project_collections, applied_versions and collections. A row without a
# guard, or one that came back after we had removed ours, is not of our making.
JUDGE_ROWS = text(f"""
    SELECT
        target.project_id,
        target.collection_id,
        CASE
            WHEN target.project_id NOT IN (legacy.project_id, coalesce(guard.project_id, '')) THEN 'link'
            WHEN coalesce(guard.project_id <> target.project_id OR guard.is_deleted OR guard.found_row, true)
                OR coalesce(guard.row_id <> target.id, false)
                THEN 'found'
            WHEN {IS_ENRICHED} THEN 'enriched'
            ELSE 'ours'
        END AS kind,
        concat_ws(', ', {WHAT_HOLDS}) AS enriched
    FROM project_collections AS target
    JOIN collections AS legacy ON legacy.collection_id = target.collection_id
    LEFT JOIN applied_versions AS guard ON guard.collection_id = target.collection_id
    WHERE {IN_CHUNK}
    ORDER BY target.id
""")  # noqa: S608 - constants

# Served by applied_versions_pkey and by the unique key of the target. Tombstones go, and what else
# guards no row of the target.
NEXT_GUARDS = """
    SELECT max(collection_id) FROM (
        SELECT collection_id FROM applied_versions WHERE {after} ORDER BY collection_id LIMIT :chunk_rows
    ) AS chunk
"""
FORGET_GUARDS = """
    DELETE FROM applied_versions AS guard
    WHERE {after} AND collection_id <= :upto_key AND NOT EXISTS (
        SELECT FROM project_collections AS target
        WHERE target.project_id = guard.project_id AND target.collection_id = guard.collection_id
    )
"""
FIRST, FURTHER = "true", "collection_id > :after_key"


class RollbackBusyError(CommandError):
    """Something is at work that would bring back what is removed; the chunk in hand was not changed."""


class RollbackInterruptedError(CommandError):
    """A signal came between two chunks; what was done until then is done for good."""

    def __init__(self, tally: "Rollback") -> None:
        """Take what was done so far."""
        done = "looked at" if tally.dry_run else "removed"
        super().__init__(f"Stopped after {tally.removed:,} rows were {done}. Run the same again to go on.")


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A row of the target that stays, and why."""

    project_id: str
    collection_id: str
    reason: str


@dataclass(slots=True)
class Rollback:
    """What was done so far, or would be; `listed` holds the first of the rows that stay."""

    dry_run: bool
    removed: int = 0
    kept_enriched: int = 0
    kept_found: int = 0
    kept_links: int = 0
    discarded_events: int = 0
    listed: list[KeptRow] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """Return how many rows of the target stay."""
        return self.kept_enriched + self.kept_found + self.kept_links

    def keep(self, rows: Sequence[Row[Any]]) -> None:
        """Count rows that stay. One that was ours and stayed was enriched until a moment ago."""
        kinds = Counter(row.kind for row in rows)
        self.kept_links += kinds["link"]
        self.kept_found += kinds["found"]
        self.kept_enriched += kinds["enriched"] + kinds["ours"]
        room = LISTED_ROWS - len(self.listed)
        self.listed += [KeptRow(row.project_id, row.collection_id, _reason(row)) for row in rows[:room]]

    def counts(self) -> dict[str, object]:
        """Return what a machine wants to know; its keys are documented."""
        return {
            "removed": self.removed,
            "kept_enriched": self.kept_enriched,
            "kept_found": self.kept_found,
            "kept_links": self.kept_links,
            "discarded_events": self.discarded_events,
            "dry_run": self.dry_run,
        }


def _reason(row: Row[Any]) -> str:
    match row.kind:
        case "link":
            return "links the collection to another project"
        case "found":
            return "was there before this system, or was put there by somebody else"
        case _:
            return f"was enriched: {row.enriched or 'until a moment ago'}"


Watch = Callable[[Rollback], None]


async def roll_back(engine: AsyncEngine, *, interrupted: asyncio.Event, watch: Watch) -> Rollback:
    """Take away what this system made. Repeating it is safe, whatever the end of the time before.

    Events that were pending at the start are discarded first: they are copies of legacy rows, and
    without their guards they could bring old states back. Those that live writes append meanwhile stay.
    Then rows go together with their guards; then guards without a row. Guards of rows that stay remain,
    so that another rollback judges these rows in the same way. A worker that is started in the middle
    can spoil nothing: it is kept out of the chunk in hand, and found before the next one.

    Args:
        engine: lends one connection.
        interrupted: set it to stop after the chunk in hand.
        watch: called after each chunk with what was done so far.

    Raises:
        RollbackBusyError: a worker is connected, or a backfill is running.
        RollbackInterruptedError: interrupted; the rest is still there.
        sqlalchemy.exc.DBAPIError: the chunk in hand was not changed.

    """
    walk = Walk(engine, interrupted, watch, Rollback(dry_run=False))
    await walk.cancel_backfills()
    await walk.discard_events()
    await walk.remove_rows()
    await walk.forget_guards()
    logger.info("rollback_finished", **walk.tally.counts())
    return walk.tally


async def plan(engine: AsyncEngine, *, interrupted: asyncio.Event, watch: Watch) -> Rollback:
    """Say what a rollback would do now. Every transaction is READ ONLY, and nobody has to stop for it.

    Raises:
        RollbackInterruptedError: interrupted before all rows were looked at.

    """
    walk = Walk(engine, interrupted, watch, Rollback(dry_run=True))
    await walk.look()
    logger.info("rollback_finished", **walk.tally.counts())
    return walk.tally


async def connected_workers(connection: AsyncConnection) -> list[str]:
    """Name the workers of this database, of any host: their sessions, or through a pooler the processes."""
    if is_pooled(connection):
        return [f"process {name}" for name in (await connection.execute(FIND_BEATING_WORKERS)).scalars()]
    found = await connection.execute(FIND_WORKERS, {"worker": WORKER})
    return [f"PostgreSQL's pid {pid}" for pid in found.scalars()]


async def who_is_busy(connection: AsyncConnection) -> str | None:
    """Say in a sentence who has to be stopped before a rollback; None when nobody is at work."""
    workers = await connected_workers(connection)
    if workers:
        return f"A worker is connected to this database ({', '.join(workers)})."
    found = await connection.execute(FIND_BACKFILL, {"driven_seconds": DRIVEN_SECONDS})
    backfill_id = found.scalar_one_or_none()
    return None if backfill_id is None else f"Backfill {backfill_id} is running."


async def refuse_while_busy(connection: AsyncConnection) -> None:
    """Raise RollbackBusyError unless nobody is at work."""
    busy = await who_is_busy(connection)
    if busy is not None:
        raise RollbackBusyError(f"{busy} Stop the workers first, then run the same again.")


@dataclass(slots=True)
class Walk:
    """One way through the outbox, the target and the guard; every step is a transaction of its own."""

    engine: AsyncEngine
    interrupted: asyncio.Event
    watch: Watch
    tally: Rollback
    said_at: float = field(default_factory=time.monotonic)
    record: int = 0

    async def cancel_backfills(self) -> None:
        """End every backfill, so that none goes on and none is taken for done, and void every proof."""
        async with self.changing() as connection:
            await connection.execute(CANCEL_BACKFILLS)
            self.record = await record_beginning(connection)

    async def discard_events(self) -> None:
        """Delete what was pending at the start.

        Not behind the lock on the guard: a batch may hold events while it waits for the guard.
        """
        async with self.looking() as connection:
            newest_id = (await connection.execute(NEWEST_EVENT)).scalar_one()
        chunk = {"newest_id": newest_id, "chunk_rows": CHUNK_ROWS}
        discarded = 0 if newest_id is None else CHUNK_ROWS
        while discarded:
            async with self.changing(behind_lock=False) as connection:
                discarded = (await connection.execute(DISCARD_EVENTS, chunk)).rowcount
            self.tally.discarded_events += discarded
            self.show()

    async def remove_rows(self) -> None:
        """Take away what is ours with its guards, and count and list the rest."""
        async for chunk in self.rows():
            async with self.changing() as connection:
                removed = (await connection.execute(REMOVE_ROWS, chunk)).rowcount
                kept = (await connection.execute(JUDGE_ROWS, chunk)).all()
            self.tally.removed += removed
            self.tally.keep(kept)
            self.show()

    async def forget_guards(self) -> None:
        """Delete the guards without a row; the last transaction also finds that still nobody is at work."""
        after, chunk = FIRST, {"chunk_rows": CHUNK_ROWS}
        while True:
            async with self.changing() as connection:
                found = await connection.execute(text(NEXT_GUARDS.format(after=after)), chunk)
                upto_key = found.scalar_one()
                if upto_key is None:
                    await record_end(connection, self.record)
                    return
                await connection.execute(
                    text(FORGET_GUARDS.format(after=after)), chunk | {"upto_key": upto_key}
                )
            after, chunk = FURTHER, chunk | {"after_key": upto_key}

    async def look(self) -> None:
        """Count what would be discarded, removed and kept."""
        async with self.looking() as connection:
            self.tally.discarded_events = (await connection.execute(COUNT_EVENTS)).scalar_one()
        async for chunk in self.rows():
            async with self.looking() as connection:
                rows = (await connection.execute(JUDGE_ROWS, chunk)).all()
            staying = [row for row in rows if row.kind != "ours"]
            self.tally.removed += len(rows) - len(staying)
            self.tally.keep(staying)
            self.show()

    async def rows(self) -> AsyncIterator[dict[str, int]]:
        """Cut the rows that the target has now into chunks by id, the first bound exclusive."""
        async with self.looking() as connection:
            last_id = (await connection.execute(LAST_ROW)).scalar_one()
        after_id = -(2**31)  # below any id: ids are 32-bit integers
        while last_id is not None:
            bounds = {"after_id": after_id, "last_id": last_id, "chunk_rows": CHUNK_ROWS}
            async with self.looking() as connection:
                upto_id = (await connection.execute(NEXT_ROWS, bounds)).scalar_one()
            if upto_id is None:
                return
            yield {"after_id": after_id, "upto_id": upto_id}
            after_id = upto_id

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection whose transaction can change nothing."""
        self.heed_interruption()
        async with self.engine.connect() as connection:
            await connection.execute(READ_ONLY)
            await connection.execute(PREPARE)
            yield connection

    @asynccontextmanager
    async def changing(self, *, behind_lock: bool = True) -> AsyncIterator[AsyncConnection]:
        """Lend a connection for a chunk that no batch can come between, and commit it."""
        self.heed_interruption()
        async with self.engine.begin() as connection:
            await connection.execute(PREPARE)
            if behind_lock:
                await connection.execute(KEEP_BATCHES_OUT)
            await refuse_while_busy(connection)
            yield connection

    def heed_interruption(self) -> None:
        """Raise RollbackInterruptedError when a signal has come."""
        if self.interrupted.is_set():
            raise RollbackInterruptedError(self.tally)

    def show(self) -> None:
        """Tell the watcher of each chunk, and the log once a second."""
        self.watch(self.tally)
        if time.monotonic() - self.said_at >= LOG_SECONDS:
            self.said_at = time.monotonic()
            logger.info("rollback_chunk", **self.tally.counts())
