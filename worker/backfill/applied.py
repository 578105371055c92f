"""Waiting until workers have settled what a run enqueued."""

import asyncio
import time
from collections.abc import Callable

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.backfill_runs import BackfillRun
from worker.backfill.pace import rest
from worker.backfill.pending import PendingCounter
from worker.command_line.patience import Patience

logger = structlog.get_logger(__name__)

LOOK_SECONDS = 0.2
AWAY_SECONDS = 1
STALL_SECONDS = 5
STALL_HINT = "is a worker running? start one with `python -m worker`"


async def wait_until_applied(
    engine: AsyncEngine,
    run: BackfillRun,
    *,
    interrupted: asyncio.Event,
    on_stall: Callable[[int], None] | None = None,
) -> bool:
    """Wait until none of the run's events is pending; False when interrupted before.

    While PostgreSQL is away it is waited for.

    Args:
        engine: lends one connection, several times a second.
        run: its events are those of backfills with an id up to its `last_event_id`.
        interrupted: set it to stop.
        on_stall: called with the number of pending events, each time five seconds passed in which none
            was settled.

    """
    counter, patience = PendingCounter(engine), Patience()
    fewest, fewer_at = None, time.monotonic()
    while not interrupted.is_set():
        pending = None
        with patience.waiting():
            pending = await counter.count(last=run.last_event_id)
        if pending is None:
            await rest(interrupted, AWAY_SECONDS)
            continue
        if not pending:
            return True
        if fewest is None or pending < fewest:
            fewest, fewer_at = pending, time.monotonic()
        elif time.monotonic() - fewer_at > STALL_SECONDS:
            fewer_at = time.monotonic()
            logger.warning("backfill_not_applied", run_id=run.id, pending=pending, hint=STALL_HINT)
            if on_stall is not None:
                on_stall(pending)
        await rest(interrupted, LOOK_SECONDS)
    return False
