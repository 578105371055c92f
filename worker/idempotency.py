"""What becomes of the keys of creations by themselves: a day later they are forgotten."""

import math
import time

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

logger = structlog.get_logger(__name__)

SECONDS_BETWEEN_PASSES = 60.0
HOURS = 24
ROWS = 10_000

# Served by idempotency_keys_by_time. Workers may read nothing of a key but its time.
PRUNE = text("""
    DELETE FROM idempotency_keys
    WHERE created_at <= (
        SELECT max(created_at) FROM (
            SELECT created_at FROM idempotency_keys
            WHERE created_at < now() - make_interval(hours => :hours)
            ORDER BY created_at LIMIT :rows
        ) AS oldest
    )
""")


class KeyUpkeep:
    """Forgets the oldest keys, some once a minute, in every worker."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._next_pass = -math.inf  # monotonic

    async def tend(self) -> None:
        """Make the next pass, once a minute."""
        if time.monotonic() < self._next_pass:
            return
        self._next_pass = time.monotonic() + SECONDS_BETWEEN_PASSES
        if pruned := await self.prune():
            logger.info("idempotency_keys_pruned", keys=pruned)

    async def prune(self) -> int:
        """Remove keys older than HOURS, about ROWS of them at most, and return how many there were."""
        async with self._engine.begin() as connection:
            return (await connection.execute(PRUNE, {"hours": HOURS, "rows": ROWS})).rowcount
