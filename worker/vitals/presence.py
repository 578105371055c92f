"""Which worker processes run, and which ended without a word: a row for each in the database."""

import asyncio

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.database import autocommit

SILENT_SECONDS = 3  # a process that lives is heard once a second

# No index: the table holds the processes of an hour.
ARRIVE = text("""
    WITH forgotten AS (
        DELETE FROM worker_processes WHERE heartbeat_at < clock_timestamp() - interval '1 hour'
    ), arrived AS (
        INSERT INTO worker_processes (name) VALUES (:name) RETURNING id
    )
    SELECT
        id,
        (
            SELECT count(*) FROM worker_processes
            WHERE ended_at IS NULL
                AND heartbeat_at > clock_timestamp() - interval '10 minutes'
                AND heartbeat_at < clock_timestamp() - make_interval(secs => :silent_seconds)
        ) AS unclean_ends
    FROM arrived
""")
# Served by worker_processes_pkey.
BEAT = text("UPDATE worker_processes SET heartbeat_at = clock_timestamp() WHERE id = :id")
LEAVE = text("UPDATE worker_processes SET ended_at = clock_timestamp() WHERE id = :id")


class Presence:
    """The row of this process in `worker_processes`: there before its first batch, ended in good order."""

    def __init__(self, engine: AsyncEngine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._id: int | None = None
        self._unclean_ends = 0
        self._arriving = asyncio.Lock()

    async def arrive(self) -> int:
        """Insert the row unless it is there; return how many processes ended uncleanly before this one began.

        Counted are those that fell silent within the last ten minutes without ending in good order.
        """
        async with self._arriving:
            if self._id is None:
                values = {"name": self._name, "silent_seconds": SILENT_SECONDS}
                async with self._engine.begin() as connection:
                    self._id, self._unclean_ends = (await connection.execute(ARRIVE, values)).one()
        return self._unclean_ends

    async def beat(self) -> None:
        """Show that the process lives; one that was silent for an hour, and forgotten, arrives again."""
        if self._id is None:
            return
        async with autocommit(self._engine) as connection:
            beaten = await connection.execute(BEAT, {"id": self._id})
        if not beaten.rowcount:
            self._id = None
            await self.arrive()

    async def leave(self) -> None:
        """Record that the process ends in good order."""
        if self._id is not None:
            async with self._engine.begin() as connection:
                await connection.execute(LEAVE, {"id": self._id})
