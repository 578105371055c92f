"""Driving a run: chunk after chunk, throttled, with a heartbeat, until its end or until stopped."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.backfill_runs import BackfillRun
from shared.postgres.faults import LOCK_NOT_AVAILABLE, is_transient, sqlstate
from shared.redis.doorbell import Doorbell
from worker.backfill.chunk import Chunk, run_chunk
from worker.backfill.custody import read, take
from worker.backfill.log import RunLog
from worker.backfill.pace import Pace
from worker.backfill.throttle import Gate, Throttle
from worker.custody import Custody, RunLostError
from worker.rest import rest

RECHECK_SECONDS = 0.2
FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 0.8  # a heartbeat each second
LOST_BECAUSE = {
    "running": "backfill_taken_over",
    "paused": "backfill_paused",
    "cancelled": "backfill_cancelled",
    "finished": "backfill_finished",  # by a commit whose answer was lost
}

Watch = Callable[[BackfillRun], None]


async def drive(  # noqa: PLR0913 - each is a choice of the caller's
    engine: AsyncEngine,
    run_id: int,
    *,
    interrupted: asyncio.Event,
    doorbell: Doorbell | None,
    watch: Watch | None = None,
    custody: Custody[BackfillRun] | None = None,
) -> BackfillRun:
    """Drive the run until its end, or until it is paused, cancelled, taken over or `interrupted`.

    Faults of the database that pass are waited out. An interruption lets the chunk in hand finish and
    gives the run back, so that the next driver need not wait. What ended the driving shows in the run that
    is returned: its status, and, while that is "running", `interrupted` or its driver.

    Args:
        engine: lends two connections at most.
        run_id: a run without a driver, or one that `take_up` took; of any other nothing is driven.
        interrupted: set it to stop.
        doorbell: pressed after each chunk that appended something; the caller runs it.
        watch: called with the run after each chunk, and several times a second while it is throttled.
        custody: what `take_up` returned.

    """
    custody = custody or await take(engine, run_id)
    if custody is None:
        return await read(engine, run_id)
    run = custody.run
    pace, gate = Pace(run.rate), Gate(engine, run.max_pending)
    return await _Drive(engine, custody, run, interrupted, doorbell, watch, pace, gate).to_the_end()


@dataclass(slots=True)
class _Drive:
    """One process's turn at a run."""

    engine: AsyncEngine
    custody: Custody[BackfillRun]
    run: BackfillRun
    interrupted: asyncio.Event
    doorbell: Doorbell | None
    watch: Watch | None
    pace: Pace
    gate: Gate
    log: RunLog = field(default_factory=RunLog)
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
        allowed = await self.gate.look(self._wanted_rows)
        if self.interrupted.is_set():
            return
        if isinstance(allowed, Throttle):
            await self._beat(allowed)
            await rest(self.interrupted, RECHECK_SECONDS)
            return
        chunk = await run_chunk(self.custody, min(allowed, self._wanted_rows), self.pace.slowed_by)
        self.failures = max(0, self.failures - 1)  # gently: what held up this chunk may be near
        self.pace.see_others(_events_between(self.run, chunk))
        self.pace.spend(chunk.rows, chunk.seconds)
        if self.pace.keep_to(chunk.run.rate):
            self.log.rate_changed(chunk.run)
        self.run = chunk.run
        self.gate.spend(chunk.enqueued, chunk.run.last_event_id)
        if self.doorbell is not None and chunk.enqueued:
            self.doorbell.press()
        self.log.unthrottled(self.run)
        self.log.committed(chunk)
        self._show()

    @property
    def _wanted_rows(self) -> int:
        """As many as the pace allows; after a failure fewer, to hold fewer rows for less time."""
        size = self.run.chunk_size >> 2 * self.failures
        return max(1, size if self.pace.rows is None else min(size, self.pace.rows))

    async def _back_off(self, error: Exception) -> None:
        self.failures += 1
        self.gate.forget()
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
        self.run = await self.custody.write({"throttled_by": throttle.reason})
        self.log.throttled(self.run, throttle)
        self._show()

    async def _let_go(self) -> None:
        try:
            await self.custody.let_go({"throttled_by": None, "slowed_by": None})
            self.run = await read(self.engine, self.run.id)
        except Exception as error:
            if not is_transient(error):  # its silence lets the next driver in as well
                raise

    def _show(self) -> None:
        if self.watch is not None:
            self.watch(self.run)


def _events_between(before: BackfillRun, chunk: Chunk) -> int:
    """Return how many ids others drew between a chunk's last event and the next one's; 0: unknown."""
    if before.last_event_id is None or chunk.run.last_event_id is None:
        return 0
    return chunk.run.last_event_id - before.last_event_id - chunk.enqueued
