"""The record of a rollback: a run of `audit_runs`, where every reader looks for the last proof, and no proof.

So every proof from before is void at once. While the rollback is under way, or
was interrupted, the run is `failed`; once it came to its end it is `finished`, and `incomplete`.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

UNFINISHED = "A rollback of phase 1 has begun, and has not ended."
FINISHED = "Phase 1 was rolled back: what was proved before holds no longer."

# A rollback that goes on where another stopped takes its record over. Served by audit_runs_by_end.
TAKE_OVER = text("""
    UPDATE audit_runs SET
        (started_at, heartbeat_at, finished_at)
            = ROW (statement_timestamp(), statement_timestamp(), statement_timestamp())
    WHERE id = (
        SELECT id FROM audit_runs
        WHERE finished_at IS NOT NULL AND requested_by = 'rollback' AND status = 'failed'
        ORDER BY finished_at DESC LIMIT 1
    )
    RETURNING id
""")
# It took no time: its duration is not to decide when the next audit is due.
BEGIN = text("""
    INSERT INTO audit_runs
        (status, verdict, requested_by, repair, error, started_at, heartbeat_at, finished_at)
    VALUES ('failed', 'incomplete', 'rollback', false, :error,
        statement_timestamp(), statement_timestamp(), statement_timestamp())
    RETURNING id
""")
END = text("""
    UPDATE audit_runs SET status = 'finished', error = :error,
        (started_at, heartbeat_at, finished_at)
            = ROW (statement_timestamp(), statement_timestamp(), statement_timestamp())
    WHERE id = :id
""")


async def record_beginning(connection: AsyncConnection) -> int:
    """Write, in the caller's transaction, that a rollback begins; return the id that `record_end` takes."""
    run_id: int | None = (await connection.execute(TAKE_OVER)).scalar()
    if run_id is None:
        run_id = (await connection.execute(BEGIN, {"error": UNFINISHED})).scalar_one()
    return run_id


async def record_end(connection: AsyncConnection, run_id: int) -> None:
    """Write, in the caller's transaction, that the rollback ended."""
    await connection.execute(END, {"id": run_id, "error": FINISHED})
