"""Going on with a run whose driver may be gone, or may only be slow."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncEngine

from shared import backfill_runs
from shared.backfill_runs import BackfillRun, RunDrivenError
from worker.backfill.terminal import what_now
from worker.command_line.run import CommandError
from worker.rest import rest

TAKEOVER_LOOK_SECONDS = 0.25


async def resume_when_left(
    engine: AsyncEngine, *, in_worker: bool, interrupted: asyncio.Event
) -> BackfillRun:
    """Take the unfinished run, once its driver, if it has one, has been silent for too long.

    Raises:
        CommandError: the driver is alive, or the wait was interrupted.
        shared.backfill_runs.NoUnfinishedRunError: there is no run to resume.

    """
    last_beat = None
    while True:
        try:
            async with engine.begin() as connection:
                return await backfill_runs.resume(connection, in_worker)
        except RunDrivenError as error:
            if interrupted.is_set() or last_beat not in {None, error.run.heartbeat_at}:
                raise CommandError(what_now(error.run)) from error
            last_beat = error.run.heartbeat_at
        await rest(interrupted, TAKEOVER_LOOK_SECONDS)
