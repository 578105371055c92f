"""Backfills beside live writes and relays, with transactions frozen at every step: nothing is lost."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.database import create_engine
from shared.postgres.faults import is_transient
from shared.settings import Settings
from tests.backfill.driving import backfilled
from tests.backfill.rows import fix_chunk_size, insert_many
from tests.draining import drain, run_once
from tests.drift import drift
from tests.processes import HANG_SECONDS
from tests.race import freezing
from tests.race.storm import write
from tests.twins.bulk import lock_no_rows

ROWS = 40
WRITERS = 4
RELAYS = 2
PASSES = 10
PASSES_TO_CONVICT = 100
POINTS = [*freezing.NUMBERS, *freezing.BACKFILL_NUMBERS]


@pytest.fixture
async def backfill_engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """Known to the freeze points as a backfill's."""
    engine = create_engine(
        settings, application_name="collection-sync backfill", pool_size=2, statement_timeout_seconds=30
    )
    yield engine
    await engine.dispose()


async def write_on(engine: AsyncEngine, keys: list[str], over: asyncio.Event) -> None:
    while not over.is_set():
        async with engine.begin() as connection:
            await write(connection, random.choice(keys), f"text {random.random()}")  # noqa: S311 - chance


async def relay_on(engine: AsyncEngine, over: asyncio.Event) -> None:
    while not over.is_set():
        try:
            if not (await run_once(engine, 9)).events:
                await asyncio.sleep(0.003)
        except asyncpg.PostgresError as error:
            if not is_transient(error):
                raise


async def backfill_on(engine: AsyncEngine, over: asyncio.Event) -> None:
    try:
        await backfilled(engine)
    finally:
        over.set()


@contextlib.asynccontextmanager
async def freezing_weather(url: str, seed: int) -> AsyncIterator[None]:
    connection = await asyncpg.connect(url)
    weather = asyncio.create_task(freezing.weather(connection, POINTS, seed))
    try:
        yield
    finally:
        weather.cancel()
        await asyncio.gather(weather, return_exceptions=True)
        await connection.close()


@pytest.fixture
async def freezable(sql: asyncpg.Connection, database_url: str) -> AsyncIterator[None]:
    await fix_chunk_size(sql, 10)
    await freezing.install(sql)
    await freezing.install_for_backfill(sql)
    async with freezing_weather(database_url, 1), freezing_weather(database_url, 2):
        yield


async def storm(
    engine: AsyncEngine, backfill_engine: AsyncEngine, sql: asyncpg.Connection, number: int
) -> list[str]:
    """Backfill fresh rows while all of them are written to; return the drift that is left."""
    await sql.execute("DELETE FROM collections")
    await insert_many(sql, str(number), ROWS)
    rows = await sql.fetch("SELECT collection_id FROM collections")
    keys, over = [row["collection_id"] for row in rows], asyncio.Event()
    async with asyncio.timeout(HANG_SECONDS):
        await asyncio.gather(
            backfill_on(backfill_engine, over),
            *(write_on(engine, keys, over) for _ in range(WRITERS)),
            *(relay_on(engine, over) for _ in range(RELAYS)),
        )
    await drain(engine)
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0
    return await drift(sql)


async def test_backfills_among_live_writes_leave_no_drift(
    engine: AsyncEngine, backfill_engine: AsyncEngine, sql: asyncpg.Connection, freezable: None
) -> None:
    del freezable
    for number in range(PASSES):
        assert await storm(engine, backfill_engine, sql, number) == []
    assert (await backfilled(engine)).enqueued == 0


@pytest.mark.wide
async def test_the_same_storms_convict_a_backfill_that_locks_no_rows(
    engine: AsyncEngine,
    backfill_engine: AsyncEngine,
    sql: asyncpg.Connection,
    freezable: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del freezable
    lock_no_rows(monkeypatch)
    for number in range(PASSES_TO_CONVICT):
        if await storm(engine, backfill_engine, sql, number):
            return
    pytest.fail(f"{PASSES_TO_CONVICT} storms did not convict it")
