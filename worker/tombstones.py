"""What becomes of tombstones by itself: those that no event can need any more are removed.

A tombstone keeps an older event from bringing its collection back. It is needed for as long as such an event
waits, lies in an open letter, or may yet be committed by a transaction that has not ended.
"""

import math
import time

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

logger = structlog.get_logger(__name__)

SECONDS_BETWEEN_SLICES = 60.0
ROWS = 10_000

# Served by applied_versions_pkey. No index knows the tombstones: one on what changes would make every update
# of a guard write to all indexes.
END_OF_SLICE = text("""
    SELECT max(collection_id) FROM (
        SELECT collection_id FROM applied_versions
        WHERE collection_id > :after ORDER BY collection_id LIMIT :rows
    ) AS slice
""")

# Served by applied_versions_pkey, outbox_events_of_aggregate and outbox_dead_letters_of_aggregate. The
# writer of an older event began before the tombstone was left. Where every transaction that this snapshot
# finds running, prepared ones included, is younger than that, the older event is rolled back, or it is seen
# here. A guard that a batch has in hand is passed over.
PRUNE = text("""
    DELETE FROM applied_versions WHERE collection_id = ANY(ARRAY(
        SELECT collection_id FROM applied_versions AS guard
        WHERE collection_id > :after AND collection_id <= :upto
            AND is_deleted
            AND appended_at < clock_timestamp() - make_interval(days => :days)
            AND age(guard.xmin) > age(pg_snapshot_xmin(pg_current_snapshot())::xid)
            AND NOT EXISTS (SELECT FROM outbox_events WHERE aggregate_id = guard.collection_id)
            AND NOT EXISTS (
                SELECT FROM outbox_dead_letters
                WHERE aggregate_id = guard.collection_id AND closed_at IS NULL
            )
        ORDER BY collection_id
        FOR UPDATE SKIP LOCKED
    ))
""")


class TombstoneUpkeep:
    """Walks through the guards, a slice a minute, in every worker; it begins anew at their end.

    A tombstone is removed after the given number of days, and when nothing can need it.
    """

    def __init__(self, engine: AsyncEngine, retention_days: int) -> None:
        self._engine = engine
        self._retention_days = retention_days
        self._after = ""
        self._next_slice = -math.inf  # monotonic

    async def tend(self) -> None:
        """Prune the next slice, once a minute."""
        if time.monotonic() < self._next_slice:
            return
        self._next_slice = time.monotonic() + SECONDS_BETWEEN_SLICES
        if pruned := await self.prune_slice():
            logger.info("tombstones_pruned", tombstones=pruned)

    async def prune_slice(self) -> int:
        """Remove the tombstones of the next slice that nothing can need, and return how many there were."""
        async with self._engine.begin() as connection:
            slice_ = {"after": self._after, "rows": ROWS}
            upto: str | None = (await connection.execute(END_OF_SLICE, slice_)).scalar_one()
            if upto is None:
                self._after = ""
                return 0
            bounds = {"after": self._after, "upto": upto, "days": self._retention_days}
            pruned = (await connection.execute(PRUNE, bounds)).rowcount
        self._after = upto
        return pruned
