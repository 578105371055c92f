"""Who is to blame for what PostgreSQL refused: the row, its parents, its surroundings, or it is unknown."""

from enum import Enum, auto

import asyncpg

from shared.postgres.faults import (
    FOREIGN_KEY_VIOLATION,
    LOCK_NOT_AVAILABLE,
    UNIQUE_VIOLATION,
    WRITTEN_COLUMNS,
    is_environmental,
    sqlstate,
)
from worker.relay.faults import is_row_fault

# Whether the index holds a value that an event brings. One that does not, such as the primary key, refuses a
# row because its sequence is behind, and the next attempt draws another value.
HOLDS_WRITTEN_COLUMN = """
    SELECT coalesce(bool_or(
        index.indexprs IS NOT NULL
        OR EXISTS (
            SELECT FROM pg_attribute
            WHERE attrelid = index.indrelid AND attnum = ANY(index.indkey) AND attname = ANY($3)
        )
    ), false)
    FROM pg_index AS index
    WHERE index.indexrelid = to_regclass(format('%I.%I', $1::text, $2::text))
"""
# Whether the key leads from a row to its project or its collection. Any other is held by a child.
LEADS_TO_A_PARENT = """
    SELECT EXISTS (
        SELECT FROM pg_constraint
        WHERE conrelid = to_regclass(format('%I.%I', $1::text, $3::text)) AND conname = $2
            AND confrelid IN (to_regclass('projects'), to_regclass('collections'))
    )
"""


class Blame(Enum):
    """What an event's fault says of the event."""

    ROW = auto()  # its own values: it can never be applied
    PARENT = auto()  # its project or its collection is gone
    SURROUNDINGS = auto()  # something that may be fixed while it waits
    UNKNOWN = auto()


async def blame(connection: asyncpg.Connection, error: Exception) -> Blame:
    """Return who is to blame for a fault of an event that was tried alone.

    Args:
        connection: on which it may be looked up in PostgreSQL's catalogue; after the fault was rolled back.
        error: the fault.

    """
    code = sqlstate(error)
    if code == LOCK_NOT_AVAILABLE or is_environmental(error):
        return Blame.SURROUNDINGS
    if code == UNIQUE_VIOLATION:
        holds = await connection.fetchval(HOLDS_WRITTEN_COLUMN, *_named(error), list(WRITTEN_COLUMNS))
        return Blame.ROW if holds else Blame.SURROUNDINGS
    if code == FOREIGN_KEY_VIOLATION:
        table = getattr(error, "table_name", None)
        return (
            Blame.PARENT if await connection.fetchval(LEADS_TO_A_PARENT, *_named(error), table) else Blame.ROW
        )
    return Blame.ROW if is_row_fault(error) else Blame.UNKNOWN


def _named(error: Exception) -> tuple[str | None, str | None]:
    return getattr(error, "schema_name", None), getattr(error, "constraint_name", None)
