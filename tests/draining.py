"""What a worker does, without its process: batches until nothing is left, each logged."""

from collections import Counter
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from worker.relay import run as relay
from worker.relay.batch import Batch
from worker.relay.claim import BEGINNING, BULK_LANES, LIVE_LANE, Lanes, Position
from worker.relay.outcomes import Outcome
from worker.telemetry.reporter import BatchReporter

BATCH_SIZE = 500
ALL_LANES = Lanes(LIVE_LANE.first, BULK_LANES.last)


async def run_once(
    engine: AsyncEngine,
    limit: int = BATCH_SIZE,
    lanes: Lanes = ALL_LANES,
    start: Position = BEGINNING,
    **how: Any,  # noqa: ANN401 - whatever the relay takes
) -> Batch:
    """Run one batch; what it fails by is raised as it is."""
    try:
        return await relay.run_once(engine, limit, lanes, start, **how)
    except relay.BatchFailedError as failed:
        raise failed.cause from None


async def drain(engine: AsyncEngine, batch_size: int = BATCH_SIZE, wake: str = "call") -> Counter[Outcome]:
    """Run batches until there is nothing left to claim; return the outcomes, counted."""
    outcomes: Counter[Outcome] = Counter()
    reporter = BatchReporter()
    while (batch := await run_once(engine, batch_size)).events:
        outcomes += Counter(settlement.outcome for settlement in batch.settlements.values())
        await reporter.report(batch, wake)
    await reporter.flush()
    return outcomes
