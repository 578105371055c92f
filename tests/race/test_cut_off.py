"""A transaction that is cut off, at whatever step, has changed nothing; whoever comes next does it all."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.database import create_engine
from shared.settings import Settings
from tests.backfill.driving import chunk_of, current, started, take
from tests.backfill.rows import enqueued, fix_chunk_size, insert_collection, insert_many
from tests.draining import run_once
from tests.drift import drift
from tests.legacy_rows import set_collection
from tests.race import freezing
from tests.worker.events import append_raw
from worker.relay.outcomes import Outcome

BATCH_POINTS = [
    point
    for point in freezing.NUMBERS
    if point.startswith(("guard", "target", "acknowledge", "commit: of a batch"))
]
AFTER_BURIAL = [point for point in BATCH_POINTS if point.startswith(("acknowledge", "commit"))]
CHUNK_POINTS = list(freezing.BACKFILL_NUMBERS)

OF_BATCHES = """
    SELECT
        (SELECT array_agg(id ORDER BY id) FROM outbox_events) AS pending,
        (SELECT array_agg(t ORDER BY id)::text FROM project_collections AS t) AS target,
        (SELECT array_agg(v ORDER BY collection_id)::text FROM applied_versions AS v) AS guard,
        (SELECT count(*) FROM outbox_dead_letters) AS dead
"""
OF_CHUNKS = """
    SELECT cursor_key, processed, enqueued, (SELECT count(*) FROM outbox_events) AS events,
        (SELECT count(*) FROM applied_versions) AS guards
    FROM backfill_runs
"""
CUT = (asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError, OSError)


async def run_once_cut_off(engine: AsyncEngine, sql: asyncpg.Connection, point: str) -> None:
    async with freezing.frozen(sql, point):
        batch = asyncio.create_task(run_once(engine))
        await freezing.arrived(sql, point)
        await freezing.cut_off(sql)
        with contextlib.suppress(*CUT):
            await batch


@pytest.mark.parametrize("point", BATCH_POINTS)
async def test_a_batch_that_is_cut_off_changed_nothing_and_the_next_settles_each_event_once(
    point: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "gone", "there before")
    await run_once(engine)
    await freezing.install(sql)
    await set_collection(engine, "gone", is_active=False)
    await set_collection(engine, "new", "text")
    before = await sql.fetchrow(OF_BATCHES)

    await run_once_cut_off(engine, sql, point)
    assert await sql.fetchrow(OF_BATCHES) == before

    batch = await run_once(engine)
    assert Counter(settlement.outcome for settlement in batch.settlements.values()) == {Outcome.APPLIED: 2}
    assert await drift(sql) == []


@pytest.mark.parametrize("point", AFTER_BURIAL)
async def test_a_batch_that_is_cut_off_after_it_buried_an_event_has_not_buried_it(
    point: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await freezing.install(sql)
    await set_collection(engine, "fine", "text")
    poison = await append_raw(sql, "poisoned", updated_at="never")
    before = await sql.fetchrow(OF_BATCHES)

    await run_once_cut_off(engine, sql, point)
    assert await sql.fetchrow(OF_BATCHES) == before

    await run_once(engine)
    assert await sql.fetchval("SELECT array_agg(id) FROM outbox_dead_letters") == [poison]
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0
    assert await drift(sql) == []


@pytest.fixture
async def backfill_engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """Known to the freeze points as a backfill's."""
    engine = create_engine(
        settings, application_name="collection-sync backfill", pool_size=2, statement_timeout_seconds=30
    )
    yield engine
    await engine.dispose()


@pytest.mark.parametrize("point", CHUNK_POINTS)
async def test_a_chunk_that_is_cut_off_appended_nothing_and_moved_no_cursor(
    point: str, backfill_engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 12)
    await insert_collection(sql, "c-00000065", "p1")  # in sync, between two of them
    await fix_chunk_size(sql, 4)
    await freezing.install_for_backfill(sql)
    run = await take(backfill_engine, await started(backfill_engine))
    await chunk_of(backfill_engine, run)
    before = await sql.fetchrow(OF_CHUNKS)

    async with freezing.frozen(sql, point):
        chunk = asyncio.create_task(chunk_of(backfill_engine, run))
        await freezing.arrived(sql, point)
        await freezing.cut_off(sql)
        with contextlib.suppress(*CUT):
            await chunk
    assert await sql.fetchrow(OF_CHUNKS) == before

    while (await current(backfill_engine)).status == "running":
        await chunk_of(backfill_engine, run)
    assert await enqueued(sql) == {f"c-{number:07}": 1 for number in range(1, 13)}
    assert (await current(backfill_engine)).enqueued == 12
    assert await sql.fetchval("SELECT array_agg(collection_id) FROM applied_versions") == ["c-00000065"]
