"""The one transaction of a backfill: it appends a chunk's events and moves the cursor, or neither."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, null
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.backfill_runs import BackfillRun
from shared.events import EventType, Source
from shared.outbox import append_states
from worker.backfill.find import Found, Scope, find, prepare
from worker.backfill.guards import insert_guards
from worker.backfill.pace import next_chunk_size
from worker.custody import Custody


@dataclass(frozen=True, slots=True)
class Chunk:
    """A committed chunk: rows read, events appended, its duration, and the run as it is now."""

    rows: int
    enqueued: int
    seconds: float
    run: BackfillRun


async def run_chunk(
    custody: Custody[BackfillRun], most_rows: int | None = None, slowed_by: str | None = None
) -> Chunk:
    """Enqueue what the target lacks of the next rows, and move the cursor behind them, in one transaction.

    The rows that it enqueues are locked against writers until it commits, the others are not touched. What is
    in sync and has no guard gets one, last, since batches wait for these.
    A kill at any moment leaves both done or neither, so the next chunk begins exactly where this ends.

    Args:
        custody: its engine lends one connection.
        most_rows: the most rows to look at, where the run's chunk size is larger.
        slowed_by: what bounds the run's speed now, for its row.

    Raises:
        worker.custody.RunLostError: the run is paused, cancelled or another's; nothing was changed.
        sqlalchemy.exc.DBAPIError, OSError, TimeoutError: nothing was changed, or, when the connection
            was lost in COMMIT, all of it; calling again is right in both cases.

    """
    began = time.perf_counter()
    async with custody.engine.begin() as connection:
        await prepare(connection)
        run = await custody.lock(connection)
        row_limit = run.chunk_size if most_rows is None else min(run.chunk_size, most_rows)
        found = await find(connection, Scope(run.project_id, run.end_key), run.cursor_key, row_limit)
        event_ids = await _append(connection, found)
        await insert_guards(connection, found)
        progress = _progress(run, found, event_ids, row_limit, time.perf_counter() - began)
        run = await custody.write_in(connection, {**progress, "slowed_by": slowed_by})
    return Chunk(found.rows, len(event_ids), time.perf_counter() - began, run)


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
    }
