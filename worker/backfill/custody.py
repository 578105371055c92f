"""Who drives a run: taking it, showing signs of life, giving it back."""

import uuid
from dataclasses import dataclass
from typing import Self

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.backfill_runs import COLUMNS, HAS_NO_DRIVER, BackfillRun, as_run, runs
from shared.postgres.database import autocommit
from shared.tables.runs import backfill_runs
from worker.backfill.chunk import RunLostError
from worker.vitals.own_name import own_name

NOW = func.clock_timestamp()
TAKE_UP = (
    update(backfill_runs)
    .where(
        runs.id
        == select(runs.id)
        .where(runs.status == "running", runs.in_worker, HAS_NO_DRIVER)
        .with_for_update(skip_locked=True)  # locked: its driver is in the middle of a chunk
        .scalar_subquery()
    )
    .values(driver=bindparam("own_name"), driver_token=bindparam("token"), heartbeat_at=NOW)
    .returning(*COLUMNS)
)


async def read(engine: AsyncEngine, run_id: int) -> BackfillRun:
    """Return the run as it is now."""
    async with engine.connect() as connection:
        return as_run((await connection.execute(select(*COLUMNS).where(runs.id == run_id))).one())


@dataclass(frozen=True, slots=True)
class Custody:
    """One driver's hold on a run: whoever takes the run after it draws another token, and that one counts."""

    engine: AsyncEngine
    run: BackfillRun  # as it was taken
    token: uuid.UUID

    @classmethod
    async def take(cls, engine: AsyncEngine, run_id: int) -> Self | None:
        """Take a run that has no driver; None: it is another's."""
        token = uuid.uuid4()
        async with engine.begin() as connection:
            taken = await connection.execute(
                update(backfill_runs)
                .where(runs.id == run_id, runs.status == "running", HAS_NO_DRIVER)
                .values(driver=own_name(), driver_token=token, heartbeat_at=NOW)
                .returning(*COLUMNS)
            )
            row = taken.one_or_none()
        return None if row is None else cls(engine, as_run(row), token)

    async def beat(self, throttled_by: str) -> BackfillRun:
        """Show that the run is driven although it waits, and why.

        Raises:
            RunLostError: it is paused, cancelled or another's.

        """
        async with self.engine.begin() as connection:
            beaten = await connection.execute(
                update(backfill_runs)
                .where(runs.id == self.run.id, runs.status == "running", runs.driver_token == self.token)
                .values(heartbeat_at=NOW, throttled_by=throttled_by)
                .returning(*COLUMNS)
            )
            row = beaten.one_or_none()
        if row is None:
            raise RunLostError
        return as_run(row)

    async def let_go(self) -> None:
        """Give the run back, so that whoever goes on with it need not wait for our silence."""
        async with self.engine.begin() as connection:
            await connection.execute(
                update(backfill_runs)
                .where(runs.id == self.run.id, runs.driver_token == self.token)
                .values(driver_token=None, throttled_by=None)
            )


async def take_up(engine: AsyncEngine) -> Custody | None:
    """Take the run that waits for a worker; None when none waits.

    One that waits was left to workers, and nobody has driven it yet or its driver has been silent for
    three seconds. Of any number of callers one gets it, and is to `drive` it at once.
    """
    token = uuid.uuid4()
    async with autocommit(engine) as connection:
        taken = await connection.execute(TAKE_UP, {"own_name": own_name(), "token": token})
        row = taken.one_or_none()
    return None if row is None else Custody(engine, as_run(row), token)
