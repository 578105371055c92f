"""What there is in a database at some point of the migration, written as our processes write it."""

import asyncio

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.audit_runs import AuditOptions, AuditRun
from tests.backfill.driving import backfilled
from tests.draining import drain
from tests.legacy_rows import set_collection
from worker.audit.run import audit

# A worker that is heard for as long as a test may last.
ALIVE = "INSERT INTO worker_processes (name, heartbeat_at) VALUES ('host:1:ab', now() + interval '1 hour')"


async def audited(engine: AsyncEngine, *, repair: bool = False, project_id: str | None = None) -> AuditRun:
    options = AuditOptions(project_id, repair)
    return await audit(engine, options, requested_by="command", interrupted=asyncio.Event())


async def in_sync(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    """Bring three collections over, prove it, and let a worker live."""
    for name in ("c1", "c2", "c3"):
        await set_collection(engine, name, "text")
    await drain(engine)
    await backfilled(engine)
    await audited(engine)
    await sql.execute(ALIVE)
