"""The relay: from the outbox to `project_collections`, a batch at a time."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.database import driver_connection
from worker.relay.apply import UnappliedError
from worker.relay.batch import Batch
from worker.relay.bury import bury
from worker.relay.claim import (
    ALL_LANES,
    BEGINNING,
    ClaimedEvent,
    Lanes,
    Position,
    acknowledge,
    claim,
    claim_these,
)
from worker.relay.outcomes import Outcome
from worker.relay.settle import may_pass_apart, settle
from worker.telemetry.reporter import BatchReporter
from worker.telemetry.spans import trace_failed_batch

BATCH_SIZE = 500

Take = Callable[[asyncpg.Connection], Awaitable[list[ClaimedEvent]]]

# How long one event that stands apart may wait for a row that somebody holds: the others wait with it. And
# what PostgreSQL would refuse at COMMIT it refuses under the event's own savepoint.
ISOLATED = "SET LOCAL lock_timeout = '100ms'; SET CONSTRAINTS ALL IMMEDIATE"


async def run_once(  # noqa: PLR0913 - what a drain may ask for
    engine: AsyncEngine,
    batch_size: int = BATCH_SIZE,
    lanes: Lanes = ALL_LANES,
    start: Position = BEGINNING,
    *,
    apart: bool = False,
    passing_over: Collection[int] = (),
    in_hand: list[ClaimedEvent] | None = None,
) -> Batch:
    """Claim, apply and acknowledge one batch in one transaction; an empty batch means nothing to claim.

    A crash at any point leaves every event either settled and gone, or pending as before. Only after
    a batch failed by what may be a row's fault, a second one pays for savepoints, to find the row; or
    the first one does, where such faults are expected (`apart`).

    Args:
        engine: with sessions of a worker, see `worker/main.py`.
        batch_size: how many events to claim at the most.
        lanes: where to claim from.
        start: behind which position.
        apart: divide the batch at once.
        passing_over: the ids of events that are not to be claimed.
        in_hand: receives what was claimed, also where the batch fails.

    Raises:
        asyncpg.PostgresError, UnappliedError, OSError, TimeoutError: nothing was changed; the same call
            may be made again.

    """

    def take(connection: asyncpg.Connection) -> Awaitable[list[ClaimedEvent]]:
        return claim(connection, batch_size, lanes, start, passing_over)

    return await _run(engine, take, batch_size, [] if in_hand is None else in_hand, apart=apart)


async def run_these(
    engine: AsyncEngine, ids: Sequence[int], in_hand: list[ClaimedEvent] | None = None
) -> Batch:
    """Do the same with these events, as far as they are pending; the batch counts as full."""
    received = [] if in_hand is None else in_hand
    return await _run(engine, lambda connection: claim_these(connection, ids), 0, received, apart=False)


async def _run(
    engine: AsyncEngine, take: Take, most: int, in_hand: list[ClaimedEvent], *, apart: bool
) -> Batch:
    began = time.perf_counter()

    async def take_in_hand(connection: asyncpg.Connection) -> list[ClaimedEvent]:
        in_hand[:] = events = await take(connection)
        return events

    try:
        return await _run_whole_or_apart(engine, take_in_hand, most, apart=apart)
    except Exception as error:
        trace_failed_batch(in_hand, error, time.perf_counter() - began)
        raise


async def _run_whole_or_apart(engine: AsyncEngine, take: Take, most: int, *, apart: bool) -> Batch:
    try:
        return await _transact(engine, take, most, isolating=apart)
    except (asyncpg.PostgresError, UnappliedError) as error:
        if apart or not may_pass_apart(error):
            raise
    return await _transact(engine, take, most, isolating=True)


async def _transact(engine: AsyncEngine, take: Take, most: int, *, isolating: bool) -> Batch:
    began = time.perf_counter()
    async with driver_connection(engine) as connection, connection.transaction():
        claiming = time.perf_counter()
        events = await take(connection)
        claim_seconds = time.perf_counter() - claiming
        if not events:
            return Batch(claim_seconds=claim_seconds)
        if isolating:
            await connection.execute(ISOLATED)
        verdicts = await settle(connection, events, isolating=isolating)
        await bury(connection, verdicts)
        await acknowledge(connection, [event for event in events if verdicts[event.id].is_final])
    return Batch(events, verdicts, time.perf_counter() - began, claim_seconds, is_full=len(events) >= most)


async def drain(engine: AsyncEngine, batch_size: int = BATCH_SIZE, wake: str = "call") -> Counter[Outcome]:
    """Run batches until there is nothing left to claim; log each and return the outcomes, counted."""
    outcomes: Counter[Outcome] = Counter()
    reporter = BatchReporter()
    while (batch := await run_once(engine, batch_size)).events:
        outcomes += Counter(verdict.outcome for verdict in batch.verdicts.values())
        await reporter.report(batch, wake)
    await reporter.told()
    return outcomes
