"""Of a collection's letters the newest is open: it says what stands in the way now, and the older no more."""

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from tests.dead_letters.test_replay import dead, reopen, states
from tests.draining import drain
from tests.legacy_rows import set_collection
from tests.worker.events import append_raw
from worker.dead_letters.upkeep import close_overtaken


async def test_a_letter_supersedes_the_older_one_of_its_collection_in_the_batch_that_buries_it(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    older = await dead(engine, sql, "c1")
    another = await dead(engine, sql, "c2")
    with capture_logs() as lines:
        newer = await dead(engine, sql, "c1")
    assert await states(sql) == {older: "superseded", newer: "dead", another: "dead"}
    said = {"event": "dead_letters_superseded", "letters": 1, "event_ids": [older]}
    assert [line for line in lines if line.items() >= said.items()]


async def test_of_those_that_die_in_one_batch_the_newest_stays_open(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    ids = [await append_raw(sql, "c1", created_at="never") for _ in range(3)]
    await drain(engine)
    assert await states(sql) == {ids[0]: "superseded", ids[1]: "superseded", ids[2]: "dead"}


async def test_what_dies_after_a_newer_event_died_is_superseded_at_once(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    older = await append_raw(sql, "c1", created_at="never")
    holder = await asyncpg.connect(database_url)
    async with holder.transaction():
        await holder.execute("SELECT FROM outbox_events WHERE id = $1 FOR UPDATE", older)
        newer = await dead(engine, sql, "c1")
    await holder.close()
    assert await states(sql) == {newer: "dead"}
    await drain(engine)
    assert await states(sql) == {older: "superseded", newer: "dead"}


async def test_what_a_sequence_that_went_back_makes_look_older_closes_nothing_and_stays_open(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await append_raw(sql, "other")
    before = await dead(engine, sql, "c1")
    await sql.execute("SELECT setval(pg_get_serial_sequence('outbox_events', 'id'), 1, false)")
    after = await dead(engine, sql, "c1")
    assert after < before
    assert await close_overtaken(engine) == []
    assert await states(sql) == {before: "dead", after: "dead"}


async def test_what_two_batches_or_the_release_before_left_open_the_next_look_closes(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    older, middle, newest = [await dead(engine, sql, "c1") for _ in range(3)]
    await reopen(sql, older, middle)
    assert await close_overtaken(engine) == [older, middle]
    assert await states(sql) == {older: "superseded", middle: "superseded", newest: "dead"}


async def test_a_newer_letter_that_is_closed_closes_no_other(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    older, newer = [await dead(engine, sql, "c1") for _ in range(2)]
    await sql.execute("UPDATE outbox_dead_letters SET state = 'discarded', closed_at = now()")
    await reopen(sql, older)
    assert await close_overtaken(engine) == []
    assert await states(sql) == {older: "dead", newer: "discarded"}


async def test_no_batch_waits_for_a_letter_that_an_operator_has_in_hand(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    await set_collection(engine, "c1")
    older = await dead(engine, sql, "c1")
    operator = await asyncpg.connect(database_url)
    async with operator.transaction():
        await operator.execute("SELECT FROM outbox_dead_letters WHERE id = $1 FOR UPDATE", older)
        newer = await dead(engine, sql, "c1")
        assert await states(sql) == {older: "dead", newer: "dead"}
    await operator.close()
    assert await close_overtaken(engine) == [older]
