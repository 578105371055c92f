"""The one transaction of a backfill: it appends a chunk's events and moves the cursor, or neither."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, func, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.backfill_runs import COLUMNS, BackfillRun, as_run
from shared.events import EventType, Source
from shared.outbox import append_states
from shared.tables.runs import backfill_runs
from worker.backfill.find import Found, Scope, find, prepare
from worker.backfill.pace import next_chunk_size

runs = backfill_runs.c

LOCK_RUN = select(*COLUMNS, runs.driver_token).where(runs.id == bindparam("run_id")).with_for_update()


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
