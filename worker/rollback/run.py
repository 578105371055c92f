"""Rollback: it removes the rows that this system made and no user enriched, and leaves the legacy table."""

import asyncio

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.rollback.tally import Rollback
from worker.rollback.walk import Walk, Watch

logger = structlog.get_logger(__name__)


async def roll_back(engine: AsyncEngine, *, interrupted: asyncio.Event, watch: Watch) -> Rollback:
    """Remove what this system made. Repeating it is safe, however the time before ended.

    Events that were pending at the start are discarded first: they are copies of legacy rows, and
    without their guards they could bring old states back. Those that live writes append meanwhile stay.
    Then rows go together with their guards; then guards without a row. Guards of rows that stay remain,
    so that another rollback judges these rows in the same way. A worker that is started in the middle
    can spoil nothing: it is kept out of the chunk in hand, and found before the next one.

    Args:
        engine: lends one connection.
        interrupted: set it to stop after the chunk in hand.
        watch: called after each chunk with what was done so far.

    Raises:
        worker.rollback.phase.ReadsMovedError: lists are answered from what would be removed.
        worker.rollback.busy.RollbackBusyError: a worker is connected, or a backfill is running.
        worker.rollback.walk.RollbackInterruptedError: interrupted; the rest is still there.
        sqlalchemy.exc.DBAPIError: the chunk in hand was not changed.

    """
    walk = Walk(engine, interrupted, watch, Rollback(dry_run=False))
    await walk.cancel_backfills()
    await walk.discard_events()
    await walk.remove_rows()
    await walk.forget_guards()
    logger.info("rollback_finished", **walk.tally.counts())
    return walk.tally


async def plan(engine: AsyncEngine, *, interrupted: asyncio.Event, watch: Watch) -> Rollback:
    """Return what a rollback would do now. Every transaction is READ ONLY; no worker has to stop for it.

    Raises:
        worker.rollback.walk.RollbackInterruptedError: interrupted before all rows were looked at.

    """
    walk = Walk(engine, interrupted, watch, Rollback(dry_run=True))
    await walk.look()
    logger.info("rollback_finished", **walk.tally.counts())
    return walk.tally
