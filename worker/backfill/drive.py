"""Driving a run: chunk after chunk, throttled, with a heartbeat, until its end or until stopped."""

import asyncio
import os
import random
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from sqlalchemy import or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.backfill_runs import COLUMNS, HAS_NO_DRIVER, BackfillRun, as_run, runs
from shared.doorbell import Doorbell
from shared.faults import is_transient, sqlstate
from shared.run_tables import backfill_runs
from worker.backfill.chunk import RunLostError, run_chunk
from worker.backfill.pace import Pace, rest
from worker.backfill.progress import ProgressLog
from worker.backfill.throttle import Throttle, look

logger = structlog.get_logger(__name__)

RECHECK_SECONDS = 0.2
FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 0.8  # a heartbeat each second
LOCK_NOT_AVAILABLE = "55P03"
STALL_SECONDS = 5
STALL_HINT = "is a worker running? start one with `python -m worker`"

Watch = Callable[[BackfillRun], None]

# Served by outbox_events_claim_order.
COUNT_PENDING = text("""
    SELECT count(*) FROM outbox_events WHERE lane = 2 AND id <= CAST(:last_event_id AS bigint)
""")


def own_name() -> str:
    """Return how this process is called as a driver: `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"


async def take_up(engine: AsyncEngine) -> int | None:
    """Take the run that waits for a worker, for this process, and return its id; None when none waits.

    One that waits was left to workers, and nobody has driven it yet or its driver has been silent for
    three seconds. Of any number of callers one gets it, and is to `drive` it at once.
    """
    waiting = (
        select(runs.id)
        .where(runs.status == "running", runs.in_worker, HAS_NO_DRIVER)
        .with_for_update(skip_locked=True)  # locked: its driver is in the middle of a chunk
        .scalar_subquery()
    )
    async with engine.begin() as connection:
        taken = await connection.execute(
            update(backfill_runs)
            .where(runs.id == waiting)
            .values(driver=own_name(), driver_token=uuid.uuid4(), heartbeat_at=text("clock_timestamp()"))
            .returning(runs.id)
        )
        run_id: int | None = taken.scalar_one_or_none()
    return run_id


async def drive(
    engine: AsyncEngine,
    run_id: int,
    *,
    interrupted: asyncio.Event,
    doorbell: Doorbell | None,
    watch: Watch | None = None,
) -> BackfillRun:
    """Drive the run until its end, or until it is paused, cancelled, taken over or `interrupted`.

    Faults of the database that pass are waited out. An interruption lets the chunk in hand finish and
    gives the run back, so that whoever resumes it need not wait. What ended the driving is to be seen
    in the run that is returned: its status, and, while that is "running", `interrupted` or its driver.

    Args:
        engine: lends two connections at most.
        run_id: a run without a driver, or one that `take_up` took for this process; of any other
            nothing is driven.
        interrupted: set it to stop.
        doorbell: pressed after each chunk that appended something; the caller runs it.
        watch: called with the run after each chunk, and several times a second while it is throttled.

    """
    token = uuid.uuid4()
    run = await _take(engine, run_id, token)
    if run is None:
        return await read(engine, run_id)
    return await _Drive(engine, run, token, interrupted, doorbell, watch, Pace(run.rate)).to_the_end()


async def read(engine: AsyncEngine, run_id: int) -> BackfillRun:
    """Return the run as it is now."""
    async with engine.connect() as connection:
        return as_run((await connection.execute(select(*COLUMNS).where(runs.id == run_id))).one())


async def wait_until_applied(
    engine: AsyncEngine,
    run: BackfillRun,
    *,
    interrupted: asyncio.Event,
    on_stall: Callable[[int], None] | None = None,
) -> bool:
    """Wait until none of the run's events is pending; False when interrupted before.

    Args:
        engine: lends one connection, several times a second.
        run: its events are those of backfills with an id up to its `last_event_id`.
        interrupted: set it to stop.
        on_stall: called with the number of pending events, each time five seconds passed in which none
            was settled.

    """
    fewest, fewer_at = None, time.monotonic()
    while not interrupted.is_set():
        pending = await _count_pending(engine, run)
        if not pending:
            return True
        if fewest is None or pending < fewest:
            fewest, fewer_at = pending, time.monotonic()
        elif time.monotonic() - fewer_at > STALL_SECONDS:
            fewer_at = time.monotonic()
            logger.warning("backfill_not_applied", run_id=run.id, pending=pending, hint=STALL_HINT)
            if on_stall is not None:
                on_stall(pending)
        await rest(interrupted, RECHECK_SECONDS)
    return False


async def _count_pending(engine: AsyncEngine, run: BackfillRun) -> int:
    async with engine.connect() as connection:
        counted = await connection.execute(COUNT_PENDING, {"last_event_id": run.last_event_id})
        pending: int = counted.scalar_one()
        return pending


async def _take(engine: AsyncEngine, run_id: int, token: uuid.UUID) -> BackfillRun | None:
    takeable = or_(HAS_NO_DRIVER, runs.driver == own_name())
    async with engine.begin() as connection:
        taken = await connection.execute(
            update(backfill_runs)
            .where(runs.id == run_id, runs.status == "running", takeable)
            .values(driver=own_name(), driver_token=token, heartbeat_at=text("clock_timestamp()"))
            .returning(*COLUMNS)
        )
        row = taken.one_or_none()
    return None if row is None else as_run(row)


@dataclass(slots=True)
class _Drive:
    """One process's turn at a run: `step` makes a chunk or says why not, `to_the_end` only repeats it."""

    engine: AsyncEngine
    run: BackfillRun
    token: uuid.UUID
    interrupted: asyncio.Event
    doorbell: Doorbell | None
    watch: Watch | None
    pace: Pace
    log: ProgressLog = field(default_factory=ProgressLog)
    failures: int = 0

    async def to_the_end(self) -> BackfillRun:
        self.log.started(self.run)
        try:
            while self.run.status == "running" and not self.interrupted.is_set():
                await self._step_patiently()
        except RunLostError:
            self.run = await read(self.engine, self.run.id)
            self.log.ended(self.run, LOST_BECAUSE[self.run.status])
            return self.run
        if self.run.status == "finished":
            self.log.ended(self.run, "backfill_finished")
        else:
            await self._let_go()
            self.log.ended(self.run, "backfill_interrupted")
        return self.run

    async def _step_patiently(self) -> None:
        try:
            await self._step()
        except Exception as error:
            if not is_transient(error):
                raise
            await self._back_off(error)

    async def _step(self) -> None:
        await rest(self.interrupted, self.pace.wait_seconds)
        allowed = await look(self.engine, self.run.max_pending)
        if self.interrupted.is_set():
            return
        if isinstance(allowed, Throttle):
            await self._beat(allowed)
            await rest(self.interrupted, RECHECK_SECONDS)
            return
        chunk = await run_chunk(self.engine, self.run.id, self.token, self._most_rows(allowed))
        self.failures = max(0, self.failures - 1)  # gently: what held up this chunk may be near
        self.run = chunk.run
        self.pace.spend(chunk.rows)
        if self.doorbell is not None and chunk.enqueued:
            self.doorbell.press()
        self.log.unthrottled(self.run)
        self.log.committed(chunk)
        self._show()

    def _most_rows(self, allowed: int) -> int:
        """Say how many rows to try; after a failure fewer, to hold less for less time."""
        at_pace = allowed if self.pace.rows is None else min(allowed, self.pace.rows)
        return max(1, min(at_pace, self.run.chunk_size >> 2 * self.failures))

    async def _back_off(self, error: Exception) -> None:
        self.failures += 1
        code = sqlstate(error)
        what = "rows are locked by another transaction" if code == LOCK_NOT_AVAILABLE else "a chunk failed"
        throttle = Throttle("fault", f"{what}: {code or type(error).__name__}")
        try:
            await self._beat(throttle)
        except Exception as beat_error:
            if not is_transient(beat_error):
                raise
            self.log.throttled(self.run, throttle)
        ceiling = min(FIRST_RETRY_SECONDS * 2 ** min(self.failures, 10), LAST_RETRY_SECONDS)
        await rest(self.interrupted, random.uniform(ceiling / 2, ceiling))  # noqa: S311 - jitter, not a secret

    async def _beat(self, throttle: Throttle) -> None:
        """Show that the run is driven although it waits, and why.

        Raises:
            RunLostError: it is paused, cancelled or another's.

        """
        async with self.engine.begin() as connection:
            beaten = await connection.execute(
                update(backfill_runs)
                .where(runs.id == self.run.id, runs.status == "running", runs.driver_token == self.token)
                .values(heartbeat_at=text("clock_timestamp()"), throttled_by=throttle.reason)
                .returning(*COLUMNS)
            )
            row = beaten.one_or_none()
        if row is None:
            raise RunLostError
        self.run = as_run(row)
        self.log.throttled(self.run, throttle)
        self._show()

    async def _let_go(self) -> None:
        """Give the run back at once; if that fails, three seconds of silence say the same."""
        released = (
            update(backfill_runs)
            .where(runs.id == self.run.id, runs.driver_token == self.token)
            .values(driver_token=None, throttled_by=None)
        )
        try:
            async with self.engine.begin() as connection:
                await connection.execute(released)
            self.run = await read(self.engine, self.run.id)
        except Exception as error:
            if not is_transient(error):
                raise

    def _show(self) -> None:
        if self.watch is not None:
            self.watch(self.run)


LOST_BECAUSE = {
    "running": "backfill_taken_over",
    "paused": "backfill_paused",
    "cancelled": "backfill_cancelled",
    "finished": "backfill_taken_over",
}
