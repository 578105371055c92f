"""What metrics show of the database beside the heartbeat: last audit, backfill, losses, held snapshot."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.vitals.snapshot_holders import SnapshotWatch

RUNS_LOOK_SECONDS = 5

# Served by audit_runs_by_end and backfill_runs_by_start, read backwards: the newest row of each that counts.
# One row at most: by going_back_losses_pkey and migration_phase_pkey. In earlier phases nobody counts.
# An audit of one project proves nothing about the others, and one that failed proves nothing.
LOOK = text("""
    SELECT
        audit.verdict,
        audit.compared, audit.missing, audit.mismatched, audit.orphaned, audit.pending,
        extract(epoch FROM audit.finished_at)::float8 AS audited_at,
        backfill.status,
        backfill.planned, backfill.processed, backfill.enqueued, backfill.skipped,
        backfill.throttled_by IS NOT NULL AS throttled,
        pg_stat_get_dead_tuples(to_regclass('outbox_events')) AS dead_events,
        lost.further_links, lost.tags, lost.mappings, lost.contexts, lost.without_home,
        extract(epoch FROM lost.counted_at)::float8 AS lost_counted_at
    FROM (VALUES (1)) AS always (one)
    LEFT JOIN LATERAL (
        SELECT * FROM audit_runs
        WHERE status = 'finished' AND project_id IS NULL AND finished_at IS NOT NULL
        ORDER BY finished_at DESC LIMIT 1
    ) AS audit ON true
    LEFT JOIN LATERAL (SELECT * FROM backfill_runs ORDER BY started_at DESC LIMIT 1) AS backfill ON true
    LEFT JOIN going_back_losses AS lost ON lost.singleton AND EXISTS (
        SELECT FROM migration_phase WHERE singleton AND phase IN ('shadow_reads', 'reads_moved')
    )
""")


@dataclass(frozen=True, slots=True)
class RunState:
    """The last whole audit that finished and the last backfill: None where there never was one.

    What going back would lose is None where nobody counts it. `audited_at` and `lost_counted_at` are in
    seconds since 1970, by the database's clock. `dead_events` is PostgreSQL's estimate of the rows of
    `outbox_events` that were deleted but not yet removed, `snapshot_held_seconds` for how long a session has
    kept PostgreSQL from removing them; 0 when none has.
    """

    verdict: str | None
    compared: int | None
    missing: int | None
    mismatched: int | None
    orphaned: int | None
    pending: int | None
    audited_at: float | None
    status: str | None
    planned: int | None
    processed: int | None
    enqueued: int | None
    skipped: int | None
    throttled: bool
    dead_events: int | None
    further_links: int | None
    tags: int | None
    mappings: int | None
    contexts: int | None
    without_home: int | None
    lost_counted_at: float | None
    snapshot_held_seconds: float = 0.0


class RunWatch:
    """Reads the state each time it is asked to, and passes it on; None while PostgreSQL does not answer."""

    def __init__(
        self, engine: AsyncEngine, snapshots: SnapshotWatch, watch: Callable[[RunState | None], None]
    ) -> None:
        self._engine = engine
        self._snapshots = snapshots
        self._watch = watch

    async def look(self) -> None:
        """Ask PostgreSQL once; cheap, but every RUNS_LOOK_SECONDS is often enough.

        Raises:
            sqlalchemy.exc.DBAPIError, OSError, TimeoutError: PostgreSQL could not be asked.

        """
        state = None
        try:
            async with self._engine.connect() as connection:
                state = RunState(*(await connection.execute(LOOK)).one())
        finally:
            held = self._snapshots.longest_held_seconds
            self._watch(None if state is None else replace(state, snapshot_held_seconds=held))
