"""Two at a time, frozen between their steps: each order in which they can do harm, without chance."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.draining import drain, run_once
from tests.drift import drift
from tests.legacy_rows import set_collection
from tests.race import freezing
from tests.worker.events import append_raw, outcomes
from worker.drainer import Drainer
from worker.relay.outcomes import Outcome

WRITTEN = "target: after rows were written"
UNACKNOWLEDGED = "acknowledge: before"
INSERT_LATE = """
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
    VALUES ('late', 'p1', 'late', 'owner', true)
"""


@pytest.fixture(autouse=True)
async def _freezable(sql: asyncpg.Connection, _seeded: None) -> None:
    await freezing.install(sql)


async def test_a_deletion_sees_the_row_that_another_worker_wrote_while_the_guard_waited_for_it(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c", "created")
    async with freezing.frozen(sql, WRITTEN):
        creation = asyncio.create_task(run_once(engine))
        await freezing.arrived(sql, WRITTEN)
        await set_collection(engine, "c", "created", is_active=False)
        deletion = asyncio.create_task(run_once(engine))
        await freezing.until_blocked(sql)
    await asyncio.gather(creation, deletion)
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0
    assert await drift(sql) == []


async def test_an_older_event_in_another_worker_s_hand_waits_for_the_newer_one_and_is_stale(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    older = await set_collection(engine, "c", "old")
    newer = await set_collection(engine, "c", "new")
    async with freezing.frozen(sql, WRITTEN):
        async with sql.transaction():
            await sql.execute("SELECT FROM outbox_events WHERE id = $1 FOR UPDATE", older)
            ahead = asyncio.create_task(outcomes(engine))
            await freezing.arrived(sql, WRITTEN)
        behind = asyncio.create_task(outcomes(engine))
        await freezing.until_blocked(sql)
    assert await ahead == {newer: Outcome.APPLIED}
    assert await behind == {older: Outcome.STALE}
    assert await drift(sql) == []


async def test_a_worker_does_not_wait_for_what_another_has_in_hand(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    held = await set_collection(engine, "held", "text")
    free = await set_collection(engine, "free", "text")
    async with sql.transaction():
        await sql.execute("SELECT FROM outbox_events WHERE id = $1 FOR UPDATE", held)
        batch = asyncio.create_task(outcomes(engine))
        while not batch.done() and not await freezing.blocked(sql):
            await asyncio.sleep(0.002)
        assert batch.done(), "it waits"
        assert await batch == {free: Outcome.APPLIED}


async def test_what_a_batch_has_in_hand_is_nobody_else_s_until_it_is_gone(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    event_id = await set_collection(engine, "c", "text")
    async with freezing.frozen(sql, UNACKNOWLEDGED):
        batch = asyncio.create_task(outcomes(engine))
        await freezing.arrived(sql, UNACKNOWLEDGED)
        assert await sql.fetch("SELECT id FROM outbox_events FOR UPDATE SKIP LOCKED") == []
        assert await sql.fetch("SELECT 1 FROM project_collections") == []
    assert await batch == {event_id: Outcome.APPLIED}
    assert await outcomes(engine) == {}


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.mark.parametrize("drawn", ["before the claim", "after it"])
async def test_an_event_that_comes_between_claim_and_acknowledgement_stays(
    drawn: str, engine: AsyncEngine, sql: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    late = other.transaction()
    await late.start()
    await other.execute(INSERT_LATE)
    if drawn == "before the claim":
        between = await append_raw(other, "late")
    await set_collection(engine, "c", "text")
    async with freezing.frozen(sql, WRITTEN):
        batch = asyncio.create_task(run_once(engine))
        await freezing.arrived(sql, WRITTEN)
        if drawn == "after it":
            between = await append_raw(other, "late")
        await late.commit()
    await batch
    assert await outcomes(engine) == {between: Outcome.APPLIED}


async def test_an_idle_transaction_that_has_drawn_an_id_holds_up_nobody_else(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "held", "before")
    await drain(engine)
    async with sql.transaction():
        await sql.execute("SELECT pg_current_xact_id()")
        await sql.execute("UPDATE collections SET description = 'idle' WHERE collection_id = 'held'")
        await append_raw(sql, "held")
        for number in range(3):
            event_id = await set_collection(engine, "c", str(number))
            assert await outcomes(engine) == {event_id: Outcome.APPLIED}


async def test_a_poison_event_does_not_keep_the_others_of_its_batch_from_being_applied(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    for number in range(9):
        await set_collection(engine, f"c{number}", "text")
    poison = await append_raw(sql, "poisoned", updated_at="never")
    await Drainer(engine).drain("sweep")
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0
    assert await sql.fetchval("SELECT array_agg(id) FROM outbox_dead_letters") == [poison]
    assert await drift(sql) == []
