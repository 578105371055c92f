"""What workers do with captured writes: they count them, and log who wrote past the outbox."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.planner import LOOKS, for_transaction

logger = structlog.get_logger(__name__)

COUNTING_SECONDS = 5.0
SECONDS_BETWEEN_PRUNES = 3600.0
RETENTION_DAYS = 30
ROWS = 5_000

PLANNING = text(for_transaction(LOOKS | {"enable_sort": "on"}))
# Served by captured_writes_pkey and the primary keys of what is kept, which all workers enter in one order.
# What another worker counts at this moment is passed over, so that each write is counted once.
COUNT = text("""
    WITH counted AS MATERIALIZED (
        DELETE FROM captured_writes WHERE id = ANY(ARRAY(
            SELECT id FROM captured_writes ORDER BY id LIMIT :rows FOR UPDATE SKIP LOCKED
        ))
        RETURNING collection_id, role, application, operation, captured_at
    ), summed AS MATERIALIZED (
        SELECT role, application, operation, date_trunc('minute', captured_at) AS minute,
            count(*) AS writes, max(captured_at) AS last_at
        FROM counted
        GROUP BY role, application, operation, date_trunc('minute', captured_at)
        ORDER BY role, application, operation, minute
    ), kept AS (
        INSERT INTO captured_counts (role, application, operation, minute, writes, last_at)
        SELECT role, application, operation, minute, writes, last_at FROM summed
        ON CONFLICT (role, application, operation, minute) DO UPDATE SET
            writes = captured_counts.writes + excluded.writes,
            last_at = greatest(captured_counts.last_at, excluded.last_at)
    ), remembered AS (
        INSERT INTO captured_writers (collection_id, role, application, operation, captured_at)
        SELECT DISTINCT ON (collection_id) collection_id, role, application, operation, captured_at
        FROM counted
        WHERE collection_id IS NOT NULL
        ORDER BY collection_id, captured_at DESC
        ON CONFLICT (collection_id) DO UPDATE SET
            role = excluded.role, application = excluded.application,
            operation = excluded.operation, captured_at = excluded.captured_at
        WHERE captured_writers.captured_at <= excluded.captured_at
    )
    SELECT role, application, operation, sum(writes)::bigint AS writes, max(last_at) AS last_at
    FROM summed GROUP BY role, application, operation ORDER BY role, application, operation
""")
# Served by captured_counts_by_minute.
PRUNE_COUNTS = text(
    "DELETE FROM captured_counts WHERE minute < statement_timestamp() - make_interval(days => :days)"
)
# Served by captured_writers_by_time.
PRUNE_WRITERS = text(
    "DELETE FROM captured_writers WHERE captured_at < statement_timestamp() - make_interval(days => :days)"
)


@dataclass(frozen=True, slots=True)
class Counted:
    """Captured writes of one kind that were counted at once."""

    role: str
    application: str
    operation: str
    writes: int
    last_at: datetime


class CaptureUpkeep:
    """Counts captured writes every five seconds, in every worker; each write is counted by one of them."""

    def __init__(self, engine: AsyncEngine, watch: Callable[[Counted], None] | None = None) -> None:
        self._engine = engine
        self._watch = watch
        self._next_count = self._next_prune = -math.inf  # monotonic

    async def tend(self) -> None:
        """Count what was captured, in chunks until nothing is left, and remove what is older than 30 days."""
        if time.monotonic() < self._next_count:
            return
        self._next_count = time.monotonic() + COUNTING_SECONDS
        while await self.count_chunk() == ROWS:
            pass
        if time.monotonic() >= self._next_prune:
            self._next_prune = time.monotonic() + SECONDS_BETWEEN_PRUNES
            async with self._engine.begin() as connection:
                for statement in (PRUNE_COUNTS, PRUNE_WRITERS):
                    await connection.execute(statement, {"days": RETENTION_DAYS})

    async def count_chunk(self) -> int:
        """Count up to 5,000 captured writes, log them once that is committed, and return how many."""
        async with self._engine.begin() as connection:
            await connection.execute(PLANNING)
            found = [Counted(*row) for row in await connection.execute(COUNT, {"rows": ROWS})]
        for counted in found:
            logger.warning(
                "writes_captured",
                role=counted.role,
                application=counted.application,
                operation=counted.operation,
                writes=counted.writes,
                last_at=f"{counted.last_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
            )
            if self._watch is not None:
                self._watch(counted)
        return sum(counted.writes for counted in found)
