"""When a backfill has to wait: for its own events, for live writes that are late, or as neither is known."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.lanes import LOWEST_KNOWN_LANE
from shared.planner import LOOKS, for_transaction
from shared.postgres.faults import INSUFFICIENT_PRIVILEGE, sqlstate
from worker.backfill.pending import PendingCounter

Value = TypeVar("Value")

LIVE_LAG_SECONDS = 0.5
SIGNAL_TIMEOUT_SECONDS = 0.7  # so that a heartbeat fits between two of them within a second

# At what comes first in an index, and no further: see shared/planner.py.
PLANNING = text(for_transaction(LOOKS))

# Served by outbox_events_claim_order: as a range in that index's order, by which no other can serve it.
LIVE_LAG = text(f"""
    SELECT extract(epoch FROM clock_timestamp() - created_at)::float
    FROM outbox_events WHERE lane BETWEEN {LOWEST_KNOWN_LANE} AND 0 ORDER BY lane, id LIMIT 1
""")  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True)
class Throttle:
    """Why the run has to wait: a cause that is one of a few words, and a reason with its numbers."""

    cause: str
    reason: str


class SignalUnknownError(Exception):
    """A signal could not be read, or not in time."""


class Gate:
    """Decides before each chunk whether the run may go on, and how many events it may append.

    max_pending bounds the pending backfill events. Only the run appends in its lane, so what was counted
    once, less what was appended since, is allowed without another count, which costs the same however high
    the bound is.
    """

    def __init__(self, engine: AsyncEngine, max_pending: int) -> None:
        self._engine = engine
        self._max_pending = max_pending
        self._allowed = 0
        self._pending = PendingCounter(engine)
        self._newest: int | None = None

    async def look(self, wanted: int) -> Throttle | int:
        """Return why the run has to wait now, or else how many more events it may append.

        A signal that cannot be read, or not in time, makes it wait as well; one that this role has no right
        to read raises what PostgreSQL said.

        Args:
            wanted: the rows the caller would take. Pending events are counted again only where fewer are
                known to be allowed.

        """
        try:
            live_lag = await _signal("live lane's age", self._read_live_lag())
            if self._allowed < min(wanted, self._max_pending):
                self._allowed = self._max_pending - await self._count_pending()
        except SignalUnknownError as error:
            return Throttle("signal_unknown", str(error))
        if live_lag > LIVE_LAG_SECONDS:
            return Throttle("live_lag", f"live lane is late: its oldest event has waited {live_lag:.1f} s")
        if not self._allowed:
            return Throttle(
                "max_pending", f"{self._max_pending:,} backfill events are pending, the most allowed"
            )
        return self._allowed

    def spend(self, events: int, newest: int | None) -> None:
        """Count events that were appended. newest: the run's highest event id so far, if it has one."""
        self._allowed -= events
        self._newest = newest

    def forget(self) -> None:
        """Count again next time: whether a chunk that failed has appended anything is not known."""
        self._allowed = 0

    async def _count_pending(self) -> int:
        counting = self._pending.count(most=self._max_pending, settled=self._newest)
        return await _signal("number of pending events", counting)

    async def _read_live_lag(self) -> float:
        async with self._engine.begin() as connection:
            await connection.execute(PLANNING)
            value: float | None = (await connection.execute(LIVE_LAG)).scalar_one_or_none()
        return value or 0.0


async def _signal(name: str, reading: Awaitable[Value]) -> Value:
    try:
        async with asyncio.timeout(SIGNAL_TIMEOUT_SECONDS):
            return await reading
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        if sqlstate(error) == INSUFFICIENT_PRIVILEGE:  # waiting does not help
            raise
        raise SignalUnknownError(f"{name} unknown: {sqlstate(error) or type(error).__name__}") from error
