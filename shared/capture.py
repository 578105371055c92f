"""Capture in the database: its names, and whether it is installed and whom it saw."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

FUNCTION = "collection_sync_capture"
OPERATIONS = ("insert", "update", "delete", "truncate")
TRIGGERS = tuple(f"{FUNCTION}_{operation}" for operation in OPERATIONS)
DAYS_SHOWN = 1.0
MOST_WRITERS = 20

# Served by pg_trigger_tgrelid_tgname_index. tgenabled: O on origin, A always, R on replicas only, D disabled.
TRIGGERS_IN_PLACE = text("""
    SELECT tgname::text FROM pg_trigger
    WHERE tgrelid = to_regclass('collections') AND tgname = ANY(:names) AND tgenabled IN ('O', 'A')
    ORDER BY tgname
""")
# One row at most: by capture_settings_pkey.
SETTINGS = text("SELECT mode, definition, installed_by, installed_at FROM capture_settings WHERE singleton")
# What workers have counted is served by captured_counts_by_minute; what they have not yet is little while one
# lives: by captured_writes_pkey, and up to 10,000 of it.
WRITERS = text("""
    SELECT role, application, operation, sum(writes)::bigint AS writes, max(last_at) AS last_at
    FROM (
        SELECT role, application, operation, writes, last_at FROM captured_counts
        WHERE minute >= statement_timestamp() - make_interval(secs => :seconds)
        UNION ALL
        (SELECT role, application, operation, 1, captured_at FROM captured_writes
        ORDER BY id LIMIT :uncounted)
    ) AS seen
    GROUP BY role, application, operation
    ORDER BY max(last_at) DESC, role, application, operation
    LIMIT :most
""")
MOST_UNCOUNTED = 10_000
# Of the last minute in which any was captured. Served by captured_counts_by_minute, read backwards.
LAST_COUNTED = text("SELECT last_at FROM captured_counts ORDER BY minute DESC LIMIT 1")


@dataclass(frozen=True, slots=True)
class Writer:
    """Who wrote past the outbox, and how often, in the time that was asked for."""

    role: str
    application: str
    operation: str
    writes: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Capture:
    """How the capture is installed. mode None: it is not; missing: triggers that are gone or disabled."""

    mode: str | None = None
    definition: str | None = None
    installed_by: str | None = None
    installed_at: datetime | None = None
    missing: tuple[str, ...] = ()
    left_over: bool = False  # triggers without a mode: they do nothing


async def read_capture(connection: AsyncConnection) -> Capture:
    """Return how the capture is installed, by its row and by the triggers that are there."""
    there = set((await connection.execute(TRIGGERS_IN_PLACE, {"names": list(TRIGGERS)})).scalars())
    row = (await connection.execute(SETTINGS)).one_or_none()
    if row is None:
        return Capture(left_over=bool(there))
    missing = tuple(name for name in TRIGGERS if name not in there)
    return Capture(row.mode, row.definition, row.installed_by, row.installed_at, missing)


async def read_writers(connection: AsyncConnection, days: float = DAYS_SHOWN) -> list[Writer]:
    """Return who wrote past the outbox in the last days, the latest first."""
    asked = {"seconds": days * 86_400, "uncounted": MOST_UNCOUNTED, "most": MOST_WRITERS}
    return [Writer(*row) for row in await connection.execute(WRITERS, asked)]


async def read_last_counted(connection: AsyncConnection) -> datetime | None:
    """Return when the last write was captured that is counted, to the minute; counts are kept for 30 days."""
    last_at: datetime | None = (await connection.execute(LAST_COUNTED)).scalar()
    return last_at
