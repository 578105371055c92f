"""Writers and relays that go on while a test audits: the API's order of steps, the product's own relay."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.events import EventType, Source
from shared.outbox import append_event
from shared.postgres.faults import is_transient
from tests.draining import run_once
from tests.processes import HANG_SECONDS
from tests.race.storm import INSERT, write

WRITERS = 5
RELAYS = 2
KEYS = 300
BATCH_SIZE = 20  # small, and a pause after each: events wait, and a collection's fall into several batches


@dataclass
class Load:
    """What goes on, and how much of it there was."""

    written: int = 0
    writing: bool = True
    relaying: bool = True
    relays: list[asyncio.Task[None]] = field(default_factory=list)
    writers: list[asyncio.Task[None]] = field(default_factory=list)

    async def stop_relays(self) -> None:
        self.relaying = False
        await asyncio.gather(*self.relays)

    async def until_written(self, count: int) -> None:
        """Wait until so much more was written."""
        enough = self.written + count
        async with asyncio.timeout(HANG_SECONDS):
            while self.written < enough:
                await asyncio.sleep(0.01)

    async def stop_writers(self) -> None:
        self.writing = False
        await asyncio.gather(*self.writers)


@contextlib.asynccontextmanager
async def load(engine: AsyncEngine) -> AsyncIterator[Load]:
    """Create, update, delete and bring back collections, and relay slowly, while the block lasts."""
    state = Load()
    for number in range(KEYS):
        await _create(engine, f"key-{number}")
    state.writers = [asyncio.create_task(_write(engine, state, number)) for number in range(WRITERS)]
    state.relays = [asyncio.create_task(_relay(engine, state)) for _ in range(RELAYS)]
    try:
        yield state
    finally:
        await state.stop_relays()
        await state.stop_writers()


async def _create(engine: AsyncEngine, collection_id: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(INSERT, {"id": collection_id, "description": "first"})
        await append_event(connection, collection_id, EventType.CREATED, Source.API)


async def _write(engine: AsyncEngine, state: Load, writer: int) -> None:
    dice = random.Random(writer)  # noqa: S311 - a load that can be repeated
    created = 0
    while state.writing:
        if dice.random() < 0.1:
            created += 1
            await _create(engine, f"new-{writer}-{created}")
        else:
            async with engine.begin() as connection:
                await write(connection, f"key-{dice.randrange(KEYS)}", f"text {dice.random()}")
        state.written += 1
        await asyncio.sleep(0.005)  # audits are to come to their end beside it


async def _relay(engine: AsyncEngine, state: Load) -> None:
    while state.relaying:
        try:
            await run_once(engine, BATCH_SIZE)
        except asyncpg.PostgresError as error:
            if not is_transient(error):
                raise
        await asyncio.sleep(random.uniform(0, 0.02))  # noqa: S311 - chance
