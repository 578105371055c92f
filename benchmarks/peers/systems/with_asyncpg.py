"""Writing legacy rows by asyncpg."""

from typing import Any

import asyncpg

from benchmarks.peers.systems.changes import LEGACY, Change, as_event

PLACES = {"collection_id": "$1", "project_id": "$2", "description": "$3"}
STATEMENTS = {kind: statement.format_map(PLACES) for kind, statement in LEGACY.items()}


async def write_row(connection: asyncpg.Connection, change: Change) -> dict[str, Any]:
    """Write the row in the caller's transaction, which holds its lock from now on; return the event."""
    row = await connection.fetchrow(STATEMENTS[change.kind], *change.values.values())
    return as_event(change, row)


class Alone:
    """The write without any system, on a pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def write_alone(self, change: Change) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            await write_row(connection, change)
