"""A backfill from its start to the proof: run, wait until its events are applied, audit."""

import asyncio
from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.audit_runs import AuditOptions, AuditRun
from shared.backfill_runs import BackfillOptions, BackfillRun, start
from shared.redis.doorbell import Doorbell
from worker.audit.run import audit
from worker.backfill.applied import wait_until_applied
from worker.backfill.run import Watch, drive


async def backfill_and_verify(
    engine: AsyncEngine,
    options: BackfillOptions,
    *,
    interrupted: asyncio.Event,
    doorbell: Doorbell | None,
    watch: Watch | None = None,
) -> tuple[BackfillRun, AuditRun | None]:
    """Run a backfill and, once its events are applied, an audit; a worker must be running.

    Returns:
        the run, and the audit's: None when it did not come to that, because the run was stopped by
        somebody or `interrupted`.

    Raises:
        shared.backfill_runs.RunUnfinishedError: there is an unfinished run, and nothing was done.

    """
    async with engine.begin() as connection:
        run = await start(connection, options)
    run = await drive(engine, run.id, interrupted=interrupted, doorbell=doorbell, watch=watch)
    return run, await verify(engine, run, interrupted=interrupted)


async def verify(
    engine: AsyncEngine,
    run: BackfillRun,
    *,
    interrupted: asyncio.Event,
    on_stall: Callable[[int], None] | None = None,
) -> AuditRun | None:
    """Wait until a finished run's events are applied, then audit; None when stopped before."""
    if run.status != "finished":
        return None
    if not await wait_until_applied(engine, run, interrupted=interrupted, on_stall=on_stall):
        return None
    options = AuditOptions(project_id=run.project_id)
    return await audit(engine, options, requested_by="backfill", interrupted=interrupted)
