"""The relay: from the outbox to `project_collections`, a batch at a time."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import asyncpg
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.database import driver_connection
from shared.events import Source
from worker.apply import UnappliedError
from worker.claim import ALL_LANES, BEGINNING, ClaimedEvent, Lanes, Position, acknowledge, claim, claim_these
from worker.dead_letters.bury import bury
from worker.outcomes import Outcome, Verdict
from worker.settle import may_pass_apart, settle

logger = structlog.get_logger(__name__)

BATCH_SIZE = 500

Take = Callable[[asyncpg.Connection], Awaitable[list[ClaimedEvent]]]

# How long one event that stands apart may wait for a row that somebody holds: the others wait with it.
ISOLATED_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '100ms'"


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction did: the events it claimed, a verdict for each, its duration in seconds.

    `claim_seconds` is the part of it that the claim took, which never waits for a lock. `is_full` says
    that it held as many events as it may: there may be more.
    """

    events: list[ClaimedEvent] = field(default_factory=list)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    duration_seconds: float = 0.0
    claim_seconds: float = 0.0
    is_full: bool = False

    @property
    def had_faults(self) -> bool:
        """Say whether PostgreSQL refused any of the events: the next batch may well have such as well."""
        return any(verdict.sqlstate is not None for verdict in self.verdicts.values())


async def run_once(
    engine: AsyncEngine,
    batch_size: int = BATCH_SIZE,
    lanes: Lanes = ALL_LANES,
    start: Position = BEGINNING,
    *,
    apart: bool = False,
) -> Batch:
    """Claim, apply and acknowledge one batch in one transaction; an empty batch means nothing to claim.

    A crash at any point leaves every event either settled and gone, or pending as before. Only after
    a batch failed by what may be a row's fault, a second one pays for savepoints, to find the row; or
    the first one does, where such faults are expected (`apart`).

    Raises:
        asyncpg.PostgresError, UnappliedError, OSError, TimeoutError: nothing was changed; the same call
            may be made again.

    """

    def take(connection: asyncpg.Connection) -> Awaitable[list[ClaimedEvent]]:
        return claim(connection, batch_size, lanes, start)

    return await _run(engine, take, batch_size, apart=apart)


async def run_these(engine: AsyncEngine, ids: Sequence[int]) -> Batch:
    """Do the same with these events, as far as they are pending; the batch counts as full."""
    return await _run(engine, lambda connection: claim_these(connection, ids), most=0, apart=False)


async def _run(engine: AsyncEngine, take: Take, most: int, *, apart: bool) -> Batch:
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
            await connection.execute(ISOLATED_LOCK_TIMEOUT)
        verdicts = await settle(connection, events, isolating=isolating)
        await bury(connection, verdicts)
        await acknowledge(connection, [event for event in events if verdicts[event.id].is_final])
    return Batch(events, verdicts, time.perf_counter() - began, claim_seconds, is_full=len(events) >= most)


async def drain(engine: AsyncEngine, batch_size: int = BATCH_SIZE, wake: str = "call") -> Counter[Outcome]:
    """Run batches until there is nothing left to claim; log each and return the outcomes, counted."""
    outcomes: Counter[Outcome] = Counter()
    while (batch := await run_once(engine, batch_size)).events:
        outcomes += Counter(verdict.outcome for verdict in batch.verdicts.values())
        log_batch(batch, wake)
    return outcomes


def log_batch(batch: Batch, wake: str) -> None:
    """Write one line for the batch and one for each event, but none for what a backfill applied.

    What is postponed has one line for all.
    """
    counts = Counter(verdict.outcome for verdict in batch.verdicts.values())
    settled = [event for event in batch.events if batch.verdicts[event.id].is_final]
    lags = sorted(event.age_ms + batch.duration_seconds * 1000 for event in settled)
    logger.info(
        "batch_settled",
        wake=wake,
        claimed=len(batch.events),
        **{outcome.value: counts[outcome] for outcome in Outcome},
        lag_ms_p50=round(lags[len(lags) // 2], 3),
        lag_ms_max=round(lags[-1], 3),
        duration_ms=round(batch.duration_seconds * 1000, 3),
    )
    log_postponed(batch)
    for event in settled:
        verdict = batch.verdicts[event.id]
        if event.source != Source.BACKFILL or verdict.outcome is not Outcome.APPLIED:
            log_event(event, verdict, batch.duration_seconds)


def log_postponed(batch: Batch) -> None:
    """Say how many events could not be applied now, and why the first of them."""
    postponed = [event for event in batch.events if not batch.verdicts[event.id].is_final]
    if postponed:
        first, verdict = postponed[0], batch.verdicts[postponed[0].id]
        logger.warning(
            "events_postponed",
            events=len(postponed),
            first_event_id=first.id,
            collection_id=first.collection_id,
            sqlstate=verdict.sqlstate,
            error=verdict.error,
        )


def log_event(event: ClaimedEvent, verdict: Verdict, batch_seconds: float) -> None:
    """Write the line of one event; one that died is an error."""
    log = logger.error if verdict.outcome is Outcome.DEAD else logger.info
    reason = {} if verdict.error is None else {"sqlstate": verdict.sqlstate, "error": verdict.error}
    log(
        "event_settled",
        event_id=event.id,
        collection_id=event.collection_id,
        project_id=event.project_id,
        event_type=event.event_type,
        source=event.source,
        outcome=verdict.outcome,
        lag_ms=round(event.age_ms + batch_seconds * 1000, 3),
        **reason,
    )
