"""What ran, out of the tables of runs: the last backfill, the last proof, a rollback."""

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.verdict.facts import Audit, Backfill, History

MOST_RECENT = 200
MOST_FINDINGS = 1_000

# Whether a login may see if the driver let its run go; a reader may not.
SEES_DRIVERS = text("SELECT has_column_privilege('backfill_runs', 'driver_token', 'SELECT')")
# Served by backfill_runs_by_start, read backwards.
LATEST = """
    SELECT id, status, in_worker, project_id, planned, processed, throttled_by, {has_let_go},
        extract(epoch FROM started_at)::float8, extract(epoch FROM heartbeat_at)::float8,
        extract(epoch FROM finished_at)::float8
    FROM backfill_runs ORDER BY started_at DESC LIMIT 1
"""
LATEST_SEEN = text(LATEST.format(has_let_go="driver_token IS NULL AND driver IS NOT NULL"))
LATEST_UNSEEN = text(LATEST.format(has_let_go="NULL::boolean"))
# A rollback cancels every run. Runs are started by hand, and looked through to the last that is meant.
BACKFILLED = text("""
    SELECT extract(epoch FROM finished_at)::float8 FROM backfill_runs
    WHERE status = 'finished' AND project_id IS NULL AND finished_at IS NOT NULL
    ORDER BY started_at DESC LIMIT 1
""")

# Served by audit_runs_by_end, read backwards up to the first row that counts; runs are kept for 30 days.
AUDITS = """
    SELECT id, status, verdict, requested_by, project_id, repair, compared,
        missing + mismatched + orphaned, pending, repaired, left(error, 500),
        extract(epoch FROM coalesce(started_at, finished_at))::float8, extract(epoch FROM finished_at)::float8
    FROM audit_runs
    WHERE finished_at IS NOT NULL AND {condition}
    ORDER BY finished_at DESC LIMIT {most}
"""
RECENT = text(AUDITS.format(condition="true", most=MOST_RECENT))
WHOLE = text(AUDITS.format(condition="project_id IS NULL AND requested_by <> 'rollback'", most=1))
PROOF = text(
    AUDITS.format(
        condition="project_id IS NULL AND status = 'finished' AND verdict <> 'incomplete'",
        most=1,
    )
)
ROLLBACK = text(AUDITS.format(condition="requested_by = 'rollback'", most=1))
# Served by audit_runs_unfinished.
AUDITING = text("""
    SELECT EXISTS (
        SELECT FROM audit_runs
        WHERE status IN ('requested', 'running') AND project_id IS NULL
            AND coalesce(heartbeat_at, requested_at) > clock_timestamp() - interval '10 seconds'
        ORDER BY requested_at LIMIT 1
    )
""")
# Served by audit_findings_pkey.
FINDINGS = text("""
    SELECT collection_id FROM audit_findings
    WHERE audit_run_id = :run_id AND outcome IS DISTINCT FROM 'repaired'
    ORDER BY audit_run_id, collection_id LIMIT :most
""")


async def latest_backfill(connection: AsyncConnection) -> Backfill | None:
    """Return the run that was started last, to a login that may see whether its driver let it go."""
    row = (await connection.execute(LATEST_SEEN)).one_or_none()
    return None if row is None else Backfill(*row)


async def backfilled_at(connection: AsyncConnection) -> float | None:
    """Return when the last run over all projects finished that no rollback has taken back since."""
    at: float | None = (await connection.execute(BACKFILLED)).scalar()
    return at


async def last_rollback(connection: AsyncConnection) -> Audit | None:
    """Return the record of the last rollback."""
    return await _audit(connection, ROLLBACK)


async def history(connection: AsyncConnection) -> History:
    sees_drivers = (await connection.execute(SEES_DRIVERS)).scalar_one()
    latest = (await connection.execute(LATEST_SEEN if sees_drivers else LATEST_UNSEEN)).one_or_none()
    recent = [Audit(*row) for row in await connection.execute(RECENT)]
    whole, proof, rollback = [await _audit(connection, statement) for statement in (WHOLE, PROOF, ROLLBACK)]
    return History(
        backfill=None if latest is None else Backfill(*latest),
        backfilled_at=await backfilled_at(connection),
        whole=whole,
        proof=proof,
        rollback=rollback,
        mended_at=max((audit.ended_at for audit in recent if audit.repaired), default=None),
        drifted=_drifted(recent, 0.0 if proof is None else proof.ended_at),
        is_auditing=(await connection.execute(AUDITING)).scalar_one(),
        findings=await _findings(connection, whole),
    )


async def _audit(connection: AsyncConnection, statement: TextClause) -> Audit | None:
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else Audit(*row)


def _drifted(recent: list[Audit], since: float) -> list[Audit]:
    """Return of each project the newest audit of it alone that proved anything, where it found drift."""
    newest: dict[str, Audit] = {}
    for audit in recent:
        if audit.project_id is not None and audit.proves and audit.ended_at > since:
            newest.setdefault(audit.project_id, audit)
    return [audit for audit in newest.values() if audit.has_drift]


async def _findings(connection: AsyncConnection, whole: Audit | None) -> frozenset[str]:
    if whole is None or not whole.has_drift:
        return frozenset()
    found = await connection.execute(FINDINGS, {"run_id": whole.id, "most": MOST_FINDINGS})
    return frozenset(found.scalars())
