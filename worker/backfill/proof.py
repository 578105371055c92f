"""The proof of a finished backfill: an audit, once workers have applied its events."""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.audit_runs import AuditOptions, AuditRun
from shared.backfill_runs import BackfillRun
from worker.audit.run import audit
from worker.backfill.pending import PendingCounter
from worker.command_line.patience import Patience
from worker.settled import STALL_HINT, until_settled

logger = structlog.get_logger(__name__)


async def verify(
    engine: AsyncEngine,
    run: BackfillRun,
    *,
    interrupted: asyncio.Event,
    on_stall: Callable[[int], None] | None = None,
) -> AuditRun | None:
    """Wait until a finished run's events are applied, then audit; None when interrupted before the audit."""
    if run.status != "finished" or interrupted.is_set():
        return None
    await wait_until_applied(engine, run, interrupted=interrupted, on_stall=on_stall)
    if interrupted.is_set():
        return None
    options = AuditOptions(project_id=run.project_id)
    return await audit(engine, options, requested_by="backfill", interrupted=interrupted)


async def wait_until_applied(
    engine: AsyncEngine,
    run: BackfillRun,
    *,
    interrupted: asyncio.Event,
    on_stall: Callable[[int], None] | None = None,
) -> bool:
    """Wait until none of the run's events is pending, also while PostgreSQL is away; False when interrupted.

    The run's events are those of backfills with an id up to its `last_event_id`. on_stall is called as by
    `until_settled`, after the stall was logged.
    """

    def log_stall(pending: int) -> None:
        logger.warning("backfill_not_applied", run_id=run.id, pending=pending, hint=STALL_HINT)
        if on_stall is not None:
            on_stall(pending)

    return await until_settled(
        partial(PendingCounter(engine).count, last=run.last_event_id),
        interrupted=interrupted,
        on_stall=log_stall,
        patience=Patience(),
    )
