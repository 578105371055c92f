"""Whether anything is at work that would bring back what a rollback removes."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.backfill_runs import DRIVEN_SECONDS
from shared.postgres.database import is_pooled
from worker.command_line.run import CommandError

WORKER = "collection-sync worker"  # what its sessions are called, see worker/main.py

FIND_WORKERS = text("""
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = :worker
    ORDER BY pid
""")
# A pooler's session bears the name of the client that had it last, and an idle worker has none. Its heart
# beats each second; a worker that is frozen for longer than this is not found.
FIND_BEATING_WORKERS = text("""
    SELECT name FROM worker_processes
    WHERE ended_at IS NULL AND heartbeat_at > clock_timestamp() - interval '10 seconds'
    ORDER BY name
""")

# One at most: backfill_runs_one_at_a_time. A run without a driver, killed or not there yet, shows no sign of
# life.
FIND_BACKFILL = text("""
    SELECT id FROM backfill_runs
    WHERE status = 'running'
        AND heartbeat_at > clock_timestamp() - make_interval(secs => :driven_seconds)
""")


class RollbackBusyError(CommandError):
    """Something is at work that would bring back what is removed; the chunk in hand was not changed."""


async def connected_workers(connection: AsyncConnection) -> list[str]:
    """Name the workers of this database, of any host: their sessions, or through a pooler the processes."""
    if is_pooled(connection):
        return [f"process {name}" for name in (await connection.execute(FIND_BEATING_WORKERS)).scalars()]
    found = await connection.execute(FIND_WORKERS, {"worker": WORKER})
    return [f"PostgreSQL's pid {pid}" for pid in found.scalars()]


async def who_is_busy(connection: AsyncConnection) -> str | None:
    """Return in a sentence what has to be stopped before a rollback; None when nothing is at work."""
    workers = await connected_workers(connection)
    if workers:
        return f"A worker is connected to this database ({', '.join(workers)})."
    found = await connection.execute(FIND_BACKFILL, {"driven_seconds": DRIVEN_SECONDS})
    backfill_id = found.scalar_one_or_none()
    return None if backfill_id is None else f"Backfill {backfill_id} is running."


async def refuse_while_busy(connection: AsyncConnection) -> None:
    """Refuse while a worker is connected or a backfill runs.

    Raises:
        RollbackBusyError: it names who is to be stopped.

    """
    busy = await who_is_busy(connection)
    if busy is not None:
        raise RollbackBusyError(f"{busy} Stop the workers first, then run the same again.")
