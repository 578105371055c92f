"""What becomes of comparisons of lists by themselves: their counts and findings are forgotten in time."""

import math
import time

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

SECONDS_BETWEEN_PASSES = 3600.0
RETENTION_DAYS = 30

# Served by shadow_counts_by_minute.
PRUNE_COUNTS = text(
    "DELETE FROM shadow_counts WHERE minute < statement_timestamp() - make_interval(days => :days)"
)
# Served by shadow_findings_by_time.
PRUNE_FINDINGS = text(
    "DELETE FROM shadow_findings WHERE found_at < statement_timestamp() - make_interval(days => :days)"
)


class ShadowUpkeep:
    """Removes what is older than 30 days, once an hour, in every worker."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._next_pass = -math.inf  # monotonic

    async def tend(self) -> None:
        """Make the next pass, once an hour."""
        if time.monotonic() < self._next_pass:
            return
        self._next_pass = time.monotonic() + SECONDS_BETWEEN_PASSES
        async with self._engine.begin() as connection:
            for statement in (PRUNE_COUNTS, PRUNE_FINDINGS):
                await connection.execute(statement, {"days": RETENTION_DAYS})
