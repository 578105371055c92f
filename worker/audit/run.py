"""An audit from its beginning to its verdict.

The canary first: is the comparison able to see? Then slice after slice, or as many at once as there are
connections for it, each on a snapshot of its own that ends with it. A verdict other than incomplete needs
every slice done and every pair compared.
"""

import asyncio
import contextlib
import time
from functools import partial

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.audit_runs import AuditOptions, AuditRun
from shared.postgres.advice import advice_on
from shared.postgres.database import driver_connection
from shared.postgres.faults import reason, sqlstate
from shared.redis.doorbell import Doorbell
from worker.audit.canary import blindness
from worker.audit.comparison import Slice, Tally, compare, prepare, slices_for
from worker.audit.custody import begin, finish
from worker.audit.dead_events import DeadEvents
from worker.audit.findings import (
    MOST_LISTED,
    MOST_LISTED_BY_SCHEDULE,
    Finding,
    pages,
    record,
    repaired_before,
    repaired_findings,
)
from worker.audit.log import Progress, RunLog, Watch
from worker.audit.remainder import Remainder, remainder_of
from worker.audit.repair import (
    Outcomes,
    append_repairs,
    count_unsettled,
    outcomes,
    verify,
)
from worker.audit.verdict import Coverage, judge
from worker.custody import Custody, RunLostError
from worker.settled import until_settled

REPAIR_PATIENCE_SECONDS = 60.0
VERIFY_REST_SECONDS = 0.1


class InterruptedRunError(Exception):
    """The process is to end; what was compared so far proves nothing."""


async def audit(  # noqa: PLR0913 - each is a choice of the caller's
    engine: AsyncEngine,
    options: AuditOptions,
    *,
    requested_by: str,
    interrupted: asyncio.Event,
    doorbell: Doorbell | None = None,
    watch: Watch | None = None,
    slices: int | None = None,
    connections: int = 1,
    repair_dead: bool = False,
    patience_seconds: float = REPAIR_PATIENCE_SECONDS,
) -> AuditRun:
    """Record an audit that the caller carries out itself, and do so; see `carry_out`."""
    return await carry_out(
        await begin(engine, options, requested_by),
        interrupted=interrupted,
        doorbell=doorbell,
        watch=watch,
        slices=slices,
        connections=connections,
        repair_dead=repair_dead,
        patience_seconds=patience_seconds,
    )


async def carry_out(  # noqa: PLR0913 - each is a choice of the caller's
    custody: Custody[AuditRun],
    *,
    interrupted: asyncio.Event,
    doorbell: Doorbell | None = None,
    watch: Watch | None = None,
    slices: int | None = None,
    connections: int = 1,
    repair_dead: bool = False,
    patience_seconds: float = REPAIR_PATIENCE_SECONDS,
) -> AuditRun:
    """Carry out the run that was begun or taken up, and return it with its verdict.

    Args:
        custody: its engine lends one connection more than are to compare, at most.
        interrupted: ends the run as failed, between two slices.
        doorbell: pressed after repair events were committed.
        watch: called with each Progress.
        slices: a power of two; None: as many as the tables' size asks for, or the connections.
        connections: how many compare at once, each a slice of its own.
        repair_dead: repair also what differs because its event died.
        patience_seconds: how long to wait for repair events while none is settled.

    Raises:
        worker.custody.RunLostError: another process took the run up.
        sqlalchemy.exc.SQLAlchemyError, asyncpg.PostgresError, OSError: the run is recorded as failed,
            if that was possible.

    """
    async with custody.kept():
        inspection = Inspection(
            custody, RunLog(custody.run, watch), interrupted, connections, repair_dead=repair_dead
        )
        try:
            verdict, error = await inspection.inspect(slices, doorbell, patience_seconds)
            end = {"status": "finished", "verdict": verdict, "error": error}
        except InterruptedRunError:
            end = {"status": "failed", "verdict": "incomplete", "error": "interrupted"}
        except RunLostError:
            raise
        except Exception as error:
            await inspection.fail(error)
            raise
        return await inspection.end(end)


class Inspection:
    """What was found so far of the run that `custody` holds; `connections` slices are compared at once."""

    def __init__(
        self,
        custody: Custody[AuditRun],
        log: RunLog,
        interrupted: asyncio.Event,
        connections: int,
        *,
        repair_dead: bool,
    ) -> None:
        self._engine = custody.engine
        self._custody = custody
        self._run = custody.run
        self._run_log = log
        self._interrupted = interrupted
        self._connections = connections
        self._repair_dead = repair_dead
        self._recording = asyncio.Lock()  # so that the number recorded so far is known
        self._reporting = asyncio.Lock()  # counts are written, and findings repaired, by one at a time
        self._scopes: list[Slice] = []
        self._coverage = Coverage()
        self._tally = Tally()
        self._outcomes = Outcomes()
        self._listed = 0
        self._strays = 0
        self._dead = DeadEvents(repair=self._run.repair)
        self._remainder = Remainder()
        self._canary_found: bool | None = None

    async def inspect(
        self, slices: int | None, doorbell: Doorbell | None, patience_seconds: float
    ) -> tuple[str, str | None]:
        """Run the canary, compare every slice, repair what is to be repaired; return verdict and reason."""
        await self._plan(slices)
        blind = await blindness(self._engine, len(self._scopes), self._run.project_id)
        self._canary_found = blind is None
        if blind is not None:
            return "incomplete", blind
        await self._inspect_slices(doorbell)
        if self._run.repair and self._tally.found:
            await self._verify(patience_seconds)
        return judge(
            self._coverage,
            self._tally,
            self._outcomes,
            strays=self._strays,
            remainder=self._remainder,
            dead=self._dead,
        )

    async def _plan(self, slices: int | None) -> None:
        project_id = self._run.project_id
        async with driver_connection(self._engine) as connection:
            count = await slices_for(connection, project_id, self._connections) if slices is None else slices
            kept = await repaired_before(connection, self._run.id)
        self._scopes = [Slice(count, number, project_id) for number in range(count)]
        self._coverage = Coverage(planned=count)
        self._tally = Tally(**kept)
        self._listed = self._tally.found
        self._run_log.started(count)
        await self._write()

    async def _inspect_slices(self, doorbell: Doorbell | None) -> None:
        """Let each connection take the next slice until none is left; the first fault ends all of them."""
        waiting = iter(self._scopes)

        async def one_after_another() -> None:
            for scope in waiting:
                await self._inspect_slice(scope, doorbell)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._connections):
                    group.create_task(one_after_another())
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from None

    async def _inspect_slice(self, scope: Slice, doorbell: Doorbell | None) -> None:
        self._go_on()
        tally, recorded = await self._compare(scope)
        async with self._reporting:
            self._tally += tally
            self._coverage.add(tally)
            if recorded:
                await self._report(scope, doorbell)
            await self._write()
            self._run_log.progress(self._progress())

    @property
    def _is_scheduled(self) -> bool:
        return self._run.requested_by == "schedule"

    @property
    def _most_listed(self) -> int | None:
        """None: all are listed, since each is to be repaired."""
        if self._run.repair:
            return None
        return (MOST_LISTED_BY_SCHEDULE if self._is_scheduled else MOST_LISTED) - self._listed

    async def _compare(self, scope: Slice) -> tuple[Tally, int]:
        """Count, and where something was found record it: one transaction, one snapshot for both."""
        async with (
            driver_connection(self._engine) as connection,
            connection.transaction(isolation="repeatable_read"),
        ):
            await prepare(connection, alone=self._is_scheduled)
            tally = await compare(connection, scope)
            return tally, await self._record(connection, scope) if tally.found else 0

    async def _record(self, connection: asyncpg.Connection, scope: Slice) -> int:
        async with self._recording:
            most = self._most_listed
            recorded = 0 if most == 0 else await record(connection, self._run.id, scope, most)
            self._listed += recorded
            return recorded

    async def _report(self, scope: Slice, doorbell: Doorbell | None) -> None:
        async for page in pages(self._engine, self._run.id, scope):
            self._run_log.found(page)
            passed_over = [] if self._repair_dead else [one for one in page if one.dead_letter is not None]
            self._dead.add(passed_over)
            if self._run.repair:
                await self._repair(page, passed_over, doorbell)

    async def _repair(
        self, page: list[Finding], passed_over: list[Finding], doorbell: Doorbell | None
    ) -> None:
        self._go_on()
        await self._write()  # only the holder of the run appends
        chosen = [finding for finding in page if finding not in passed_over]
        appended = await append_repairs(self._engine, self._run.id, chosen)
        self._strays += len(chosen) - appended
        self._run_log.repair_appended(appended, len(chosen) - appended, len(passed_over))
        if doorbell is not None:
            doorbell.press()

    async def _verify(self, patience_seconds: float) -> None:
        """Wait for the workers, then compare what was repaired until each pair was seen to agree, or drift.

        A pair that a user writes to meanwhile is pending once more, and is compared again.
        """
        settled = await until_settled(
            partial(count_unsettled, self._engine, self._run.id),
            interrupted=self._interrupted,
            watch=lambda left, still: self._run_log.progress(self._progress(left, still)),
            longest_stall_seconds=patience_seconds,
        )
        patient_until = time.monotonic() + patience_seconds
        while True:
            self._go_on()
            for scope in self._scopes:
                await verify(self._engine, self._run.id, scope)
            self._outcomes = await outcomes(self._engine, self._run.id)
            if not settled or not self._outcomes.pending or time.monotonic() > patient_until:
                break
            await asyncio.sleep(VERIFY_REST_SECONDS)
        if self._outcomes.still_differs > self._strays:
            self._remainder = await remainder_of(self._engine, self._run.id)
        self._run_log.repair_verified(
            self._outcomes, await repaired_findings(self._engine, self._run.id, MOST_LISTED)
        )

    def _go_on(self) -> None:
        if self._interrupted.is_set():
            raise InterruptedRunError

    def _progress(self, unsettled: int = 0, still_seconds: float = 0.0) -> Progress:
        done, planned = self._coverage.done, self._coverage.planned
        return Progress(self._run.id, done, planned, self._tally, unsettled, still_seconds)

    def _values(self) -> dict[str, object]:
        return {
            "chunks_planned": self._coverage.planned,
            "chunks_done": self._coverage.done,
            "repaired": self._outcomes.repaired,
            "canary_found": self._canary_found,
            **self._tally.recorded,
        }

    async def _write(self) -> None:
        await self._custody.write(self._values())

    async def end(self, end: dict[str, str | None]) -> AuditRun:
        """Write the run's end, with everything that was counted, and return the run."""
        run = await finish(self._custody, {**self._values(), **end})
        self._run_log.finished(run, self._listed)
        return run

    async def fail(self, error: Exception) -> None:
        """Record that the run came to no end, unless that fails as well: then its heart just stops."""
        why = advice_on(error) or f"{reason(error)} ({sqlstate(error) or type(error).__name__})"
        with contextlib.suppress(RunLostError, SQLAlchemyError, OSError, TimeoutError):
            await self.end({"status": "failed", "verdict": "incomplete", "error": why})
