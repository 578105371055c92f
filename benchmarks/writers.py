"""Users who write at a steady rate, whatever became of their earlier writes."""

import asyncio
import random
import time
from itertools import count

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from benchmarks.observer import Observer
from shared.doorbell import Doorbell
from shared.events import EventType, Source
from shared.outbox import append_event

MIX = {EventType.CREATED: 60, EventType.UPDATED: 30, EventType.DELETED: 10}  # percent

CHANGES = {
    EventType.CREATED: text("""
        INSERT INTO collections
            (collection_id, project_id, collection_name, description, created_by, is_active)
        VALUES (:collection_id, :project_id, 'benchmark', :description, :project_id, true)
    """),
    EventType.UPDATED: text("""
        UPDATE collections SET description = :description, updated_at = clock_timestamp()
        WHERE collection_id = :collection_id AND project_id = :project_id
    """),
    EventType.DELETED: text("""
        UPDATE collections SET is_active = false, description = :description, updated_at = clock_timestamp()
        WHERE collection_id = :collection_id AND project_id = :project_id
    """),
}


class Writers:
    """Write legacy rows and their events in one transaction each, then press the bell, as the API does."""

    def __init__(self, engine: AsyncEngine, doorbell: Doorbell, observer: Observer, project_id: str) -> None:
        """Take what to write with, who tells when an event was applied, and where to write."""
        self._engine = engine
        self._doorbell = doorbell
        self._observer = observer
        self._project_id = project_id
        self._numbers = count()
        self._at_rest: list[str] = []  # collections that nobody is writing to

    async def write_steadily(self, rate: int, seconds: float) -> list[float]:
        """Begin `rate` writes a second; return for each the seconds from its commit until it was applied."""
        clock = asyncio.get_running_loop().time
        began = clock()
        writes = []
        for number in range(round(rate * seconds)):
            await asyncio.sleep(began + number / rate - clock())
            writes.append(asyncio.create_task(self._write()))
        return await asyncio.gather(*writes)

    async def _write(self) -> float:
        number = next(self._numbers)
        [event_type] = random.choices(list(MIX), list(MIX.values()))  # noqa: S311 - chance, not a secret
        if event_type is EventType.CREATED or not self._at_rest:
            event_type, collection_id = EventType.CREATED, f"{self._project_id}-{number}"
        else:
            collection_id = self._at_rest.pop(random.randrange(len(self._at_rest)))  # noqa: S311
        async with self._engine.begin() as connection:
            event_id = await self._change(connection, event_type, collection_id, f"text {number}")
        committed_at = time.time()
        self._doorbell.press()
        applied_at = await self._observer.applied(event_id)
        if event_type is not EventType.DELETED:
            self._at_rest.append(collection_id)
        return applied_at - committed_at

    async def _change(
        self, connection: AsyncConnection, event_type: EventType, collection_id: str, description: str
    ) -> int:
        values = {
            "collection_id": collection_id,
            "project_id": self._project_id,
            "description": description,
        }
        await connection.execute(CHANGES[event_type], values)
        return await append_event(connection, collection_id, event_type, Source.API)
