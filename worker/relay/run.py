"""The relay: from the outbox to `project_collections`, one batch in one transaction."""

import time
from collections.abc import Awaitable, Callable, Collection, Sequence

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.database import driver_connection
from worker.relay.batch import Batch
from worker.relay.bury import bury, set_aside
from worker.relay.claim import ClaimedEvent, Lanes, Position, acknowledge, claim, claim_these
from worker.relay.outcomes import Settlement
from worker.relay.settle import may_pass_apart, settle

Take = Callable[[asyncpg.Connection], Awaitable[list[ClaimedEvent]]]

# How long one event that stands apart may wait for a row that another session holds: the others wait with it.
# And what PostgreSQL would refuse at COMMIT it refuses under the event's own savepoint.
ISOLATED = "SET LOCAL lock_timeout = '100ms'; SET CONSTRAINTS ALL IMMEDIATE"


class BatchFailedError(Exception):
    """A batch was rolled back: nothing was changed, and the same call may be made again.

    `cause` is what PostgreSQL, the connection or a check of ours raised; `events` is what had been claimed,
    in `seconds` since the transaction was asked for.
    """

    def __init__(self, cause: Exception, events: Sequence[ClaimedEvent], seconds: float) -> None:
        super().__init__(f"a batch of {len(events)} events was rolled back: {type(cause).__name__}")
        self.cause = cause
        self.events = events
        self.seconds = seconds


async def run_once(  # noqa: PLR0913 - what a drain may ask for
    engine: AsyncEngine,
    limit: int,
    lanes: Lanes,
    start: Position,
    *,
    passing_over: Collection[int] = (),
    apart: bool = False,
) -> Batch:
    """Claim, settle and acknowledge one batch in one transaction; an empty batch means nothing to claim.

    A crash at any point leaves every event either settled and gone, or pending as before. Only after
    a batch failed by what may be one row's fault does a second transaction pay for savepoints, to find the
    row; or the first one does, where such faults are expected (`apart`).

    Args:
        engine: with sessions of a worker, see `worker/main.py`.
        limit: how many events to claim at most.
        lanes: where to claim from.
        start: claim only behind this position.
        passing_over: ids of events not to claim; a few.
        apart: divide the batch at once.

    Raises:
        BatchFailedError: nothing was changed.

    """
    return await _whole_or_apart(
        engine, lambda connection: claim(connection, limit, lanes, start, passing_over), limit, apart=apart
    )


async def run_these(engine: AsyncEngine, ids: Sequence[int]) -> Batch:
    """Do the same with these events, as far as they are pending; the batch counts as full."""
    return await _whole_or_apart(engine, lambda connection: claim_these(connection, ids), 0, apart=False)


async def set_these_aside(engine: AsyncEngine, ids: Sequence[int], settlement: Settlement) -> Batch:
    """Bury these events untried, as far as they are pending."""
    async with driver_connection(engine) as connection, connection.transaction():
        return await set_aside(connection, await claim_these(connection, ids), settlement)


async def _whole_or_apart(engine: AsyncEngine, take: Take, most: int, *, apart: bool) -> Batch:
    try:
        return await _transact(engine, take, most, isolating=apart)
    except BatchFailedError as failed:
        if apart or not may_pass_apart(failed.cause):
            raise
    return await _transact(engine, take, most, isolating=True)


async def _transact(engine: AsyncEngine, take: Take, most: int, *, isolating: bool) -> Batch:
    began = time.perf_counter()
    events: list[ClaimedEvent] = []
    try:
        async with driver_connection(engine) as connection, connection.transaction():
            claiming = time.perf_counter()
            events = await take(connection)
            claim_seconds = time.perf_counter() - claiming
            if not events:
                return Batch(claim_seconds=claim_seconds)
            if isolating:
                await connection.execute(ISOLATED)
            settlements = await settle(connection, events, isolating=isolating)
            superseded = await bury(connection, settlements)
            await acknowledge(connection, [event for event in events if settlements[event.id].is_final])
    except Exception as error:
        raise BatchFailedError(error, events, time.perf_counter() - began) from error
    seconds = time.perf_counter() - began
    return Batch(events, settlements, seconds, claim_seconds, len(events) >= most, superseded)
