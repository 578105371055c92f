"""When a backfill has to wait: too much of its own is pending, live writes are late, or nobody knows."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.faults import sqlstate

LIVE_LAG_SECONDS = 0.5
SIGNAL_TIMEOUT_SECONDS = 0.7  # so that a heartbeat fits between two of them within a second

# Served by outbox_events_claim_order.
LIVE_LAG = text("""
    SELECT extract(epoch FROM clock_timestamp() - created_at)::float
    FROM outbox_events WHERE lane = 0 ORDER BY id LIMIT 1
""")
# Served by outbox_events_claim_order; counts no further than it must.
PENDING = text("""
    SELECT count(*)
    FROM (SELECT 1 FROM outbox_events WHERE lane = 2 LIMIT CAST(:max_pending AS integer)) AS counted
""")


@dataclass(frozen=True, slots=True)
class Throttle:
    """Why the run has to wait: a cause that is one of a few words, and a reason with its numbers."""

    cause: str
    reason: str


class SignalUnknownError(Exception):
    """A signal could not be read, or not in time."""


class Gate:
    """Says before each chunk whether the run may go on, and how many events it may append.

    Nobody but the run appends in its lane, so what was counted once, less what was appended since, is
    allowed without counting again: counting costs the same however high the bound is.
    """

    def __init__(self, engine: AsyncEngine, max_pending: int) -> None:
        """Take the engine to read the signals with, and the bound on pending backfill events."""
        self._engine = engine
        self._max_pending = max_pending
        self._allowed = 0

    async def look(self, wanted: int) -> Throttle | int:
        """Return why the run has to wait now, or else how many more events it may append.

        A signal that cannot be read, or not in time, makes it wait as well.

        Args:
            wanted: so many would do; if fewer are known to be allowed, the pending ones are counted.

        """
        try:
            live_lag = await _signal(self._engine, "live lane's age", LIVE_LAG, {})
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

    def spend(self, events: int) -> None:
        """Count events that were appended."""
        self._allowed -= events

    def forget(self) -> None:
        """Count anew next time: what a chunk that failed has appended is not known."""
        self._allowed = 0

    async def _count_pending(self) -> int:
        values = {"max_pending": self._max_pending}
        return int(await _signal(self._engine, "number of pending events", PENDING, values))


async def _signal(engine: AsyncEngine, name: str, statement: TextClause, values: Mapping[str, Any]) -> float:
    try:
        async with asyncio.timeout(SIGNAL_TIMEOUT_SECONDS), engine.connect() as connection:
            value: float | None = (await connection.execute(statement, values)).scalar_one_or_none()
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        raise SignalUnknownError(f"{name} unknown: {sqlstate(error) or type(error).__name__}") from error
    return value or 0.0
