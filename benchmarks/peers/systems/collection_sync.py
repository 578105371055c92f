"""collection-sync, as its API writes: the event in the transaction, then the doorbell."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.peers.systems.changes import LEGACY, Change
from shared.database import create_engine
from shared.doorbell import Doorbell, open_redis
from shared.events import EventType, Source
from shared.outbox import append_event
from shared.settings import Settings, load_settings

SETTINGS: dict[str, Any] = {}
PLACES = {name: f":{name}" for name in ("collection_id", "project_id", "description")}
STATEMENTS = {kind: text(statement.format_map(PLACES)) for kind, statement in LEGACY.items()}


async def install(_url: str) -> None:
    """Do nothing: the schema is migrated."""


class Writer:
    """Writes and appends in one transaction."""

    def __init__(self, engine: AsyncEngine, doorbell: Doorbell) -> None:
        """Take both."""
        self._engine = engine
        self._doorbell = doorbell

    async def write(self, change: Change) -> tuple[int, float]:
        """Commit the row and the event, then press the bell."""
        event_type = EventType(f"collection.{change.kind}")
        async with self._engine.begin() as connection:
            await connection.execute(STATEMENTS[change.kind], change.values)
            event_id = await append_event(connection, change.collection_id, event_type, Source.API)
        committed_at = time.time()
        self._doorbell.press()
        return event_id, committed_at

    async def write_alone(self, change: Change) -> None:
        """Commit the row."""
        async with self._engine.begin() as connection:
            await connection.execute(STATEMENTS[change.kind], change.values)


@asynccontextmanager
async def writing(_url: str) -> AsyncIterator[Writer]:
    """Open the engine and the doorbell as the API does; the address is in the environment."""
    settings = load_settings(Settings)
    engine = create_engine(settings, application_name="peers", pool_size=10, statement_timeout_seconds=30)
    async with open_redis(settings.redis_url.get_secret_value()) as redis:
        doorbell = Doorbell(redis)
        ringing = asyncio.create_task(doorbell.run())
        yield Writer(engine, doorbell)
        ringing.cancel()
    await engine.dispose()


async def work(_url: str, _applied: object) -> None:
    """Do nothing: `python -m worker` is what works, and its log is what tells."""
