"""Which backfill runs a process may take: those that have no driver, or one that has fallen silent."""

import uuid

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.backfill_runs import COLUMNS, HAS_NO_DRIVER, BackfillRun, as_run, runs
from shared.postgres.database import autocommit
from shared.tables.runs import backfill_runs
from worker.custody import NOW, Custody, Runs
from worker.vitals.own_name import own_name

RUNS = Runs("Backfill", backfill_runs, COLUMNS, BackfillRun)
DRIVEN = {"driver": bindparam("own_name"), "driver_token": bindparam("token"), "heartbeat_at": NOW}

TAKE = (
    update(backfill_runs)
    .where(runs.id == bindparam("run_id"), runs.status == "running", HAS_NO_DRIVER)
    .values(DRIVEN)
    .returning(*COLUMNS)
)
TAKE_UP = (
    update(backfill_runs)
    .where(
        runs.id
        == select(runs.id)
        .where(runs.status == "running", runs.in_worker, HAS_NO_DRIVER)
        .with_for_update(skip_locked=True)  # locked: its driver is in the middle of a chunk
        .scalar_subquery()
    )
    .values(DRIVEN)
    .returning(*COLUMNS)
)


async def take(engine: AsyncEngine, run_id: int) -> Custody[BackfillRun] | None:
    """Take this run; None: it has a driver, or is not to be driven."""
    token = uuid.uuid4()
    async with engine.begin() as connection:
        values = {"run_id": run_id, "own_name": own_name(), "token": token}
        row = (await connection.execute(TAKE, values)).one_or_none()
    return None if row is None else Custody(engine, RUNS, as_run(row), token)


async def take_up(engine: AsyncEngine) -> Custody[BackfillRun] | None:
    """Take the run that waits for a worker; None when none waits.

    One that waits was left to workers, and has had no driver yet, or one that has been silent for three
    seconds. Of any number of callers one gets it, and is to `drive` it at once.
    """
    token = uuid.uuid4()
    async with autocommit(engine) as connection:
        row = (await connection.execute(TAKE_UP, {"own_name": own_name(), "token": token})).one_or_none()
    return None if row is None else Custody(engine, RUNS, as_run(row), token)


async def read(engine: AsyncEngine, run_id: int) -> BackfillRun:
    """Return the run as it is now."""
    async with engine.connect() as connection:
        return as_run((await connection.execute(select(*COLUMNS).where(runs.id == run_id))).one())
