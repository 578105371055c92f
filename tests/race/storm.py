"""Storms of writes on a few hot collections, with several relays at work, and the verdict afterwards."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.events import EventType, Source
from shared.outbox import append_event, append_states
from shared.postgres.faults import is_transient
from tests.draining import run_once
from tests.drift import drift
from tests.processes import HANG_SECONDS
from tests.race import freezing

HOT_KEYS = 60
WRITERS = 8
WRITES = 220
RELAYS = 3
BATCH_SIZE = 9  # small, so that a collection's events fall into different batches

Write = Callable[[AsyncConnection, str, str], Awaitable[None]]

LOCK = text("SELECT is_active FROM collections WHERE collection_id = :id FOR NO KEY UPDATE")
INSERT = text(
    "INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)"
    " VALUES (:id, 'p1', 'hot', :description, 'owner', true)"
)
CHANGE = text(
    "UPDATE collections SET description = :description, is_active = :is_active,"
    " updated_at = clock_timestamp() WHERE collection_id = :id"
)
EVENT_TYPE = {True: EventType.UPDATED, False: EventType.DELETED}


@dataclass
class Verdict:
    """What a storm left behind; all empty when nothing went wrong."""

    drift: list[str] = field(default_factory=list)
    unsettled: int = 0
    twice: list[int] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        return not (self.drift or self.unsettled or self.twice or self.outcomes["dead"])


async def write(connection: AsyncConnection, collection_id: str, description: str) -> None:
    """Update, delete or bring back a collection as the API does: lock, change, append."""
    is_active = bool((await connection.execute(LOCK, {"id": collection_id})).scalar_one())
    is_active = random.random() < 0.65 if is_active else True  # noqa: S311 - chance, not a secret
    await connection.execute(
        CHANGE, {"id": collection_id, "description": description, "is_active": is_active}
    )
    await append_event(connection, collection_id, EVENT_TYPE[is_active], Source.API)


async def storm(
    engine: AsyncEngine, connections: list[asyncpg.Connection], seed: int, write: Write
) -> Verdict:
    """Let writers, a backfill and relays loose on fresh hot keys under freezing weather, then judge."""
    keys = [f"{seed:05}-{number:02}" for number in range(HOT_KEYS)]
    weathers = [
        asyncio.create_task(freezing.weather(connection, list(freezing.NUMBERS), seed * 10 + number))
        for number, connection in enumerate(connections[1:])
    ]
    written = asyncio.Event()
    relays = [asyncio.create_task(_relay(engine, written)) for _ in range(RELAYS)]
    try:
        async with asyncio.timeout(HANG_SECONDS):
            await insert_all(engine, keys)
            await asyncio.gather(
                *(_writer(engine, keys, write) for _ in range(WRITERS)), _chunks(engine, keys)
            )
            written.set()
            settled = [event for events in await asyncio.gather(*relays) for event in events]
    finally:
        for task in [*weathers, *relays]:
            task.cancel()
        await asyncio.gather(*weathers, *relays, return_exceptions=True)
        for connection in connections[1:]:
            await connection.execute("SELECT pg_advisory_unlock_all()")
    return await _judge(connections[0], settled)


async def insert_all(engine: AsyncEngine, keys: list[str]) -> None:
    async with engine.begin() as connection:
        for key in keys:
            await connection.execute(INSERT, {"id": key, "description": "first"})
            await append_event(connection, key, EventType.CREATED, Source.API)


async def _writer(engine: AsyncEngine, keys: list[str], write: Write) -> None:
    for number in range(WRITES // WRITERS):
        async with engine.begin() as connection:
            await write(connection, random.choice(keys), f"text {number}")  # noqa: S311 - chance


async def _chunks(engine: AsyncEngine, keys: list[str]) -> None:
    for start in range(0, len(keys), 10):
        async with engine.begin() as connection:
            await append_states(connection, keys[start : start + 10], EventType.UPDATED, Source.BACKFILL)
        await asyncio.sleep(0.02)


async def _relay(engine: AsyncEngine, written: asyncio.Event) -> list[tuple[int, str]]:
    """Run the product's own step until all is written and nothing is left to claim."""
    settled: list[tuple[int, str]] = []
    while True:
        was_written = written.is_set()
        try:
            batch = await run_once(engine, BATCH_SIZE)
        except asyncpg.PostgresError as error:
            if not is_transient(error):
                raise
            settled.append((0, "retried"))
            continue
        settled += [(event_id, settlement.outcome) for event_id, settlement in batch.settlements.items()]
        if was_written and not batch.events:
            return settled
        if not batch.events:
            await asyncio.sleep(0.003)


async def _judge(connection: asyncpg.Connection, settled: list[tuple[int, str]]) -> Verdict:
    counts = Counter(event_id for event_id, outcome in settled if outcome != "retried")
    return Verdict(
        drift=await drift(connection),
        unsettled=await connection.fetchval("SELECT count(*) FROM outbox_events"),
        twice=[event_id for event_id, count in counts.items() if count > 1],
        outcomes=Counter(outcome for _, outcome in settled),
    )
