"""How many backfill events are pending, counted without walking over those that are settled."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.lanes import BACKFILL_LANE
from shared.planner import LOOKS, for_transaction

# At what comes first in an index, and no further: see shared/planner.py.
PLANNING = text(for_transaction(LOOKS))

BEFORE_ALL = -(2**63)  # lower than any event's id
AFTER_ALL = 2**63 - 1

# Served by outbox_events_claim_order, from the first of these ids on: rows that were settled since the oldest
# snapshot, or since the last vacuum, are still there, by the hundred thousand.
COUNT = text(f"""
    SELECT count(*), min(id)
    FROM (
        SELECT id FROM outbox_events
        WHERE lane <= {BACKFILL_LANE} AND (lane, id) >= ({BACKFILL_LANE}, CAST(:first AS bigint))
            AND id <= CAST(:last AS bigint)
        ORDER BY lane, id
        LIMIT CAST(:most AS bigint)
    ) AS counted
""")  # noqa: S608 - constants


class PendingCounter:
    """Counts the pending events of backfills again and again, each time from the oldest it saw pending.

    A run is driven by one process at a time, so no event with a lower id can come later. The engine lends one
    connection at a time.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._first = BEFORE_ALL

    async def count(
        self, *, most: int = AFTER_ALL, last: int | None = None, settled: int | None = None
    ) -> int:
        """Return how many are pending.

        Args:
            most: counts no further than that.
            last: the highest id that counts; None: all.
            settled: when none is pending, the next count may begin behind this id: the highest that was
                committed before this call.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: it could not be read.

        """
        values = {"first": self._first, "last": AFTER_ALL if last is None else last, "most": most}
        async with self._engine.begin() as connection:
            await connection.execute(PLANNING)
            pending, oldest = (await connection.execute(COUNT, values)).one()
        if pending:
            self._first = oldest
        elif settled is not None:
            self._first = settled
        return int(pending)
