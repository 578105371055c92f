"""Seeing from outside when a write has reached `project_collections`."""

import asyncio
import time

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.database import driver_connection

PAUSE_SECONDS = 0.001  # the smallest that uvloop's timers know

# Served by the unique key of project_collections.
SEE = """
    SELECT collection_id, research_context
    FROM project_collections
    WHERE project_id = $1 AND collection_id = ANY($2::text[])
"""


class Observer:
    """Asks on a connection of its own, again and again, for the rows that somebody waits for."""

    def __init__(self, engine: AsyncEngine, project_id: str) -> None:
        """Take the engine to ask with and the project to look at."""
        self._engine = engine
        self._project_id = project_id
        self._awaited: dict[str, tuple[str | None, asyncio.Future[float]]] = {}
        self._some = asyncio.Event()
        self.steps_seconds: list[float] = []

    @property
    def waiting(self) -> int:
        """How many writes are not visible yet."""
        return len(self._awaited)

    async def visible(self, collection_id: str, text: str | None) -> float:
        """Return the monotonic time at which the collection's row said this; None means it was gone.

        One call at a time for each collection.
        """
        seen: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._awaited[collection_id] = (text, seen)
        self._some.set()
        return await seen

    async def run(self) -> None:
        """Look until cancelled; `steps_seconds` tells how far apart two looks were."""
        async with driver_connection(self._engine) as connection:
            see = await connection.prepare(SEE)
            while True:
                await self._some.wait()
                looked_at, asked = time.perf_counter(), dict(self._awaited)
                rows = dict(await see.fetch(self._project_id, list(asked)))
                now = time.perf_counter()
                for collection_id, (text, seen) in asked.items():
                    if rows.get(collection_id) == text:
                        del self._awaited[collection_id]
                        seen.set_result(now)
                if not self._awaited:
                    self._some.clear()
                await asyncio.sleep(PAUSE_SECONDS)
                self.steps_seconds.append(time.perf_counter() - looked_at)
