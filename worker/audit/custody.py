"""Which audit runs a process may take, when the schedule wants one, and how one ends."""

import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.audit_runs import COLUMNS, AuditOptions, AuditRun
from shared.lanes import HIGHEST_KNOWN_LANE
from shared.postgres.database import autocommit
from shared.tables.runs import audit_runs
from worker.custody import NOW, Custody, Runs

RUNS = Runs("Audit run", audit_runs, COLUMNS, AuditRun)

BEGIN = insert(audit_runs).values(status="running", started_at=NOW, heartbeat_at=NOW).returning(*COLUMNS)

# Served by audit_runs_unfinished. Audits of everything come first: those of a project, however many are
# requested, prove less. A run that was begun before starts anew: what it only reported is forgotten, what it
# repaired stays, to be verified.
TAKE_UP = text("""
    WITH taken AS (
        SELECT id FROM audit_runs
        WHERE status IN ('requested', 'running') AND (status = 'requested'
            OR coalesce(heartbeat_at < clock_timestamp() - interval '5 seconds', true))
        ORDER BY project_id IS NOT NULL, requested_at
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    ), forgotten AS (
        DELETE FROM audit_findings AS finding USING taken
        WHERE finding.audit_run_id = taken.id AND finding.repair_event_id IS NULL
    )
    UPDATE audit_runs AS run
    SET status = 'running', driver_token = :token,
        started_at = clock_timestamp(), heartbeat_at = clock_timestamp()
    FROM taken WHERE run.id = taken.id
    RETURNING run.id
""")

# Served by audit_runs_unfinished, audit_runs_by_end, read backwards: by time, as ids may have begun anew, by
# backfill_runs_by_start and outbox_events_claim_order. Audits of everything take at most a twentieth of the
# time, but for the one after a backfill or a repair: that comes at once, when their events are applied.
IS_DUE = text(f"""
    WITH last AS MATERIALIZED (
        SELECT finished_at, coalesce(started_at, finished_at) AS started_at
        FROM audit_runs WHERE finished_at IS NOT NULL AND project_id IS NULL
        ORDER BY finished_at DESC LIMIT 1
    )
    SELECT NOT EXISTS (
        SELECT FROM audit_runs WHERE status IN ('requested', 'running') AND project_id IS NULL
    ) AND coalesce((
        SELECT clock_timestamp() - last.finished_at
                > greatest(interval '60 seconds', 20 * (last.finished_at - last.started_at))
            OR (
                coalesce((
                    SELECT CASE WHEN status = 'finished' THEN finished_at END
                    FROM backfill_runs ORDER BY started_at DESC LIMIT 1
                ) > last.started_at, false)
                OR EXISTS (
                    SELECT FROM audit_runs AS repair
                    WHERE repair.finished_at >= last.started_at AND repair.repaired > 0
                )
            ) AND NOT EXISTS (
                SELECT FROM outbox_events
                WHERE lane BETWEEN 1 AND {HIGHEST_KNOWN_LANE} ORDER BY lane, id LIMIT 1
            )
        FROM last
    ), true)
""")  # noqa: S608 - a constant

# The newest that finished is kept however old it is: it is the last proof there is. So is what a rollback
# left, see worker/rollback/record.py. Served by audit_runs_by_end.
PRUNE = text("""
    DELETE FROM audit_runs
    WHERE finished_at < clock_timestamp() - interval '30 days' AND requested_by <> 'rollback'
        AND id IS DISTINCT FROM (
            SELECT id FROM audit_runs WHERE status = 'finished' AND finished_at IS NOT NULL
            ORDER BY finished_at DESC LIMIT 1
        )
""")


async def begin(engine: AsyncEngine, options: AuditOptions, requested_by: str) -> Custody[AuditRun]:
    """Record a run that the caller carries out itself."""
    token = uuid.uuid4()
    values = {
        "requested_by": requested_by,
        "project_id": options.project_id,
        "repair": options.repair,
        "driver_token": token,
    }
    async with engine.begin() as connection:
        row = (await connection.execute(BEGIN, values)).one()
    return Custody(engine, RUNS, AuditRun(*row), token)


async def take_up(engine: AsyncEngine) -> Custody[AuditRun] | None:
    """Take the oldest run that is requested, or whose process died; None when there is none.

    No other process gets it. A run counts as dead when its heartbeat is older than five seconds, or missing.
    """
    token = uuid.uuid4()
    async with autocommit(engine) as connection:
        run_id = (await connection.execute(TAKE_UP, {"token": token})).scalar()
        if run_id is None:
            return None
        mine = (audit_runs.c.id == run_id) & (audit_runs.c.driver_token == token)
        row = (await connection.execute(select(*COLUMNS).where(mine))).one_or_none()
    return None if row is None else Custody(engine, RUNS, AuditRun(*row), token)


async def is_due(engine: AsyncEngine) -> bool:
    """Return whether the schedule wants an audit: none of everything waits or runs, the last ended long ago.

    Long: more than 60 s and than 20 times its own duration. After a backfill or a repair it is due as soon as
    none of their events waits.
    """
    async with autocommit(engine) as connection:
        return bool((await connection.execute(IS_DUE)).scalar_one())


async def finish(custody: Custody[AuditRun], values: Mapping[str, Any]) -> AuditRun:
    """Write the run's end, forget runs older than 30 days, and return the run as it is then.

    Raises:
        RunLostError: the run is lost; nothing was written.

    """
    async with custody.engine.begin() as connection:
        run = await custody.write_in(connection, {**values, "finished_at": NOW})
        await connection.execute(PRUNE)
    return run
