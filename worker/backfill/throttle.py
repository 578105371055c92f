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


async def look(engine: AsyncEngine, max_pending: int) -> Throttle | int:
    """Return why the run has to wait now, or else how many more events it may append.

    A signal that cannot be read, or not in time, makes it wait as well.
    """
    try:
        live_lag = await _signal(engine, "live lane's age", LIVE_LAG, {})
        pending = int(
            await _signal(engine, "number of pending events", PENDING, {"max_pending": max_pending})
        )
    except SignalUnknownError as error:
        return Throttle("signal_unknown", str(error))
    if live_lag > LIVE_LAG_SECONDS:
        return Throttle("live_lag", f"live lane is late: its oldest event has waited {live_lag:.1f} s")
    if pending >= max_pending:
        return Throttle("max_pending", f"{pending:,} backfill events are pending, the most allowed")
    return max_pending - pending


async def _signal(engine: AsyncEngine, name: str, statement: TextClause, values: Mapping[str, Any]) -> float:
    try:
        async with asyncio.timeout(SIGNAL_TIMEOUT_SECONDS), engine.connect() as connection:
            value: float | None = (await connection.execute(statement, values)).scalar_one_or_none()
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        raise SignalUnknownError(f"{name} unknown: {sqlstate(error) or type(error).__name__}") from error
    return value or 0.0
