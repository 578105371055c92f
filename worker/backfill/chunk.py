"""The one transaction of a backfill: it appends a chunk's events and moves the cursor, or neither."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, func, null, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.backfill_runs import COLUMNS, BackfillRun, as_run
from shared.events import EventType, Source
from shared.outbox import PAYLOAD, append_states
from shared.tables.runs import backfill_runs
from worker.backfill.pace import next_chunk_size

# A chunk holds the rows that it enqueues, and their writers wait: it must not wait long itself.
LOCK_TIMEOUT = "500ms"

runs = backfill_runs.c

# Plans are made for the values at hand: a generic one would read from the first key in each chunk. And
# they walk along indexes: with statistics that are missing or old, a chunk would scan a table, or fetch
# and sort all that comes after the cursor. Its commit need not wait for the disk: what a crash of the
# server may take back, it takes back whole, cursor and events, and the run goes on from there.
PREPARE = text("""
    SELECT set_config('plan_cache_mode', 'force_custom_plan', true),
        set_config('synchronous_commit', 'off', true),
        set_config('enable_seqscan', 'off', true),
        set_config('enable_bitmapscan', 'off', true),
        set_config('lock_timeout', :lock_timeout, true)
""")
LOCK_RUN = select(*COLUMNS, runs.driver_token).where(runs.id == bindparam("run_id")).with_for_update()

# Which of the next rows the target does not show as they are, in one snapshot. Keys are compared and
# ordered by the database alone. Served by collections_pkey; for each row by
# project_collections_project_id_collection_id_key (LATERAL: never by a scan of the whole table), and
# for each that differs by outbox_events_of_aggregate: what the newest pending event shows is on its way.
FIND = """
    WITH chunk AS MATERIALIZED (
        SELECT collection_id, CASE WHEN kind IS NOT NULL AND (
            SELECT (event.event_type = '{deleted}') <> is_active AND event.payload = state
            FROM outbox_events AS event
            WHERE event.aggregate_id = collection_id
            ORDER BY event.id DESC
            LIMIT 1
        ) IS NOT TRUE THEN kind END AS kind
        FROM (
            SELECT collection_id, is_active, {payload} AS state, CASE
                WHEN is_active AND is_there IS NULL THEN 'missing'
                WHEN is_active AND is_different THEN 'mismatched'
                WHEN NOT is_active AND is_there THEN 'orphaned'
            END AS kind
            FROM (
                SELECT collection_id, project_id, description, created_at, updated_at,
                    is_active IS TRUE AS is_active
                FROM collections
                WHERE collection_id <= CAST(:end_key AS varchar) {more}
                ORDER BY collection_id
                LIMIT CAST(:row_limit AS integer)
            ) AS legacy LEFT JOIN LATERAL (
                SELECT true AS is_there, (target.research_context, target.created_at, target.updated_at)
                    IS DISTINCT FROM (description, legacy.created_at, legacy.updated_at) AS is_different
                FROM project_collections AS target
                WHERE target.project_id = legacy.project_id
                    AND target.collection_id = legacy.collection_id
                LIMIT 1
            ) AS home ON true
        ) AS compared
    )
    SELECT
        count(*) AS rows,
        max(collection_id) AS last_key,
        coalesce(array_agg(collection_id) FILTER (WHERE kind = 'missing'), '{{}}') AS missing,
        coalesce(array_agg(collection_id) FILTER (WHERE kind = 'mismatched'), '{{}}') AS mismatched,
        coalesce(array_agg(collection_id) FILTER (WHERE kind = 'orphaned'), '{{}}') AS orphaned
    FROM chunk
"""
AFTER_CURSOR = "AND collection_id > CAST(:cursor_key AS varchar)"
OF_PROJECT = "AND project_id = CAST(:project_id AS varchar)"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which rows a run looks at: those of one home project or of all, up to a key; None: no rows."""

    project_id: str | None
    end_key: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a chunk's rows need: how many were read, the last key, and the keys of each kind."""

    rows: int
    last_key: str | None
    missing: Sequence[str]
    mismatched: Sequence[str]
    orphaned: Sequence[str]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A committed chunk: rows read, events appended, its duration, and the run as it is now."""

    rows: int
    enqueued: int
    seconds: float
    run: BackfillRun


class RunLostError(Exception):
    """The run is not this driver's to go on with: paused, cancelled, or taken over."""


async def run_chunk(
    engine: AsyncEngine, run_id: int, token: uuid.UUID, most_rows: int | None = None
) -> Chunk:
    """Enqueue what the target lacks of the next rows, and move the cursor behind them, in one transaction.

    The rows that it enqueues are locked against writers until it commits, the others are not touched.
    A kill at any moment leaves both done or neither, so the next chunk begins exactly where this ends.

    Args:
        engine: lends one connection.
        run_id: the run.
        token: whoever took the run over last holds the one that counts.
        most_rows: at most so many, although the run's chunk size is larger.

    Raises:
        RunLostError: the run is paused, cancelled or another's; nothing was changed.
        sqlalchemy.exc.DBAPIError, OSError, TimeoutError: nothing was changed, or, when the connection
            was lost in COMMIT, all of it; calling again is right in both cases.

    """
    began = time.perf_counter()
    async with engine.begin() as connection:
        await prepare(connection)
        run = await _lock_run(connection, run_id, token)
        row_limit = run.chunk_size if most_rows is None else min(run.chunk_size, most_rows)
        found = await find(connection, Scope(run.project_id, run.end_key), run.cursor_key, row_limit)
        event_ids = await _append(connection, found)
        progress = _progress(run, found, event_ids, row_limit, time.perf_counter() - began)
        advanced = await connection.execute(
            update(backfill_runs).where(runs.id == run_id).values(progress).returning(*COLUMNS)
        )
        run = as_run(advanced.one())
    return Chunk(found.rows, len(event_ids), time.perf_counter() - began, run)


async def prepare(connection: AsyncConnection) -> None:
    """Set, for this transaction, how statements are planned and how long they wait for a lock."""
    await connection.execute(PREPARE, {"lock_timeout": LOCK_TIMEOUT})


async def find(connection: AsyncConnection, scope: Scope, cursor_key: str | None, row_limit: int) -> Found:
    """Read the next rows of the scope after the cursor and say which need an event; writes nothing."""
    values: dict[str, object] = {"end_key": scope.end_key, "row_limit": row_limit}
    more = ""
    if cursor_key is not None:
        values["cursor_key"] = cursor_key
        more += AFTER_CURSOR
    if scope.project_id is not None:
        values["project_id"] = scope.project_id
        more += OF_PROJECT
    statement = FIND.format(more=more, payload=PAYLOAD, deleted=EventType.DELETED)
    return Found(*(await connection.execute(text(statement), values)).one())


async def _lock_run(connection: AsyncConnection, run_id: int, token: uuid.UUID) -> BackfillRun:
    locked = (await connection.execute(LOCK_RUN, {"run_id": run_id})).one_or_none()
    if locked is None or locked.status != "running" or locked.driver_token != token:
        raise RunLostError
    return BackfillRun(*locked[:-1])


async def _append(connection: AsyncConnection, found: Found) -> dict[str, int]:
    """Append an event for each and return the events' ids.

    None is passed as deleted: what a row is once it is locked decides, and an orphan that was
    brought back meanwhile must not go again.
    """
    event_ids: dict[str, int] = {}
    updated = [*found.mismatched, *found.orphaned]
    for keys, event_type in ((found.missing, EventType.CREATED), (updated, EventType.UPDATED)):
        if keys:
            event_ids |= await append_states(connection, keys, event_type, Source.BACKFILL)
    return event_ids


def _progress(
    run: BackfillRun, found: Found, event_ids: Mapping[str, int], row_limit: int, seconds: float
) -> dict[str, Any]:
    """Return what the run's row becomes. Rows that vanished since they were read count as skipped."""
    by_kind = {
        kind: getattr(run, kind) + sum(key in event_ids for key in getattr(found, kind))
        for kind in ("missing", "mismatched", "orphaned")
    }
    full_size = found.rows == run.chunk_size
    ended = found.rows < row_limit
    return {
        **by_kind,
        "status": "finished" if ended else "running",
        "finished_at": func.clock_timestamp() if ended else null(),
        "cursor_key": run.cursor_key if found.last_key is None else found.last_key,
        "processed": run.processed + found.rows,
        "enqueued": run.enqueued + len(event_ids),
        "skipped": run.skipped + found.rows - len(event_ids),
        "last_event_id": max(event_ids.values(), default=run.last_event_id),
        "chunk_size": next_chunk_size(run.chunk_size, seconds) if full_size else run.chunk_size,
        "throttled_by": null(),
        "heartbeat_at": func.clock_timestamp(),
    }
