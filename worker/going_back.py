"""What workers do so that going back holds no surprise: they count what it would lose."""

import math
import time

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.phase.losses import count_and_keep

logger = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0
TIMES_ITS_DURATION = 25  # so that counting takes at most that part of the time

# One at a time: of two at once, one. Used for nothing else.
TRY_ALONE = text("SELECT pg_try_advisory_xact_lock(6331058142207371020)")
# Served by migration_phase_pkey and going_back_losses_pkey. In earlier phases nobody reads the
# target: there is nothing to lose.
IS_DUE = text(f"""
    SELECT phase IN ('shadow_reads', 'reads_moved') AND coalesce((
        SELECT clock_timestamp() - counted_at
            > greatest(interval '60 seconds', make_interval(secs => {TIMES_ITS_DURATION} * took_seconds))
        FROM going_back_losses WHERE singleton
    ), true)
    FROM migration_phase WHERE singleton
""")  # noqa: S608 - a constant


class LossUpkeep:
    """Counts once a minute where lists are compared or reads are moved; of all workers one at a time."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._next_look = -math.inf  # monotonic

    async def tend(self) -> None:
        """Count if it is due, keep it and log it. A count that failed is followed by as long a rest."""
        if time.monotonic() < self._next_look:
            return
        began = time.monotonic()
        try:
            async with self._engine.begin() as connection:
                if not await _may_count(connection):
                    return
                lost = await count_and_keep(connection)
            took = time.monotonic() - began
        finally:
            rest = TIMES_ITS_DURATION * (time.monotonic() - began)
            self._next_look = time.monotonic() + max(LOOK_SECONDS, rest)
        logger.info("going_back_counted", **lost.by_kind, took_seconds=round(took, 3))


async def _may_count(connection: AsyncConnection) -> bool:
    """Return whether it is due, also once this is the only one that may count until the transaction ends."""
    for question in (IS_DUE, TRY_ALONE, IS_DUE):
        if not (await connection.execute(question)).scalar():
            return False
    return True
