"""What a sequence leaves behind that went back: newer events with lower versions, and ids given out twice."""

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.draining import drain
from tests.drift import drift
from tests.legacy_rows import set_collection, target_rows
from tests.worker.events import append_raw, outcomes
from worker.dead_letters.upkeep import close_overtaken
from worker.relay.outcomes import Outcome

GO_BACK = "SELECT setval(pg_get_serial_sequence('outbox_events', 'id'), $1, false)"
GO_ON = "SELECT setval(pg_get_serial_sequence('outbox_events', 'id'), 1000)"
LETTERS = "SELECT id, aggregate_id, state, error FROM outbox_dead_letters ORDER BY id"


async def context(sql: asyncpg.Connection) -> object:
    [row] = await target_rows(sql, "c")
    return row["research_context"]


@pytest.mark.parametrize("back_to", [1, 3], ids=["lower", "the same"])
async def test_an_event_newer_than_what_was_applied_with_no_higher_version_is_set_aside(
    back_to: int, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    for number in range(3):
        await set_collection(engine, "c", f"text {number}")
    await drain(engine)
    await sql.execute(GO_BACK, back_to)
    lost = await set_collection(engine, "c", "newest")
    assert await outcomes(engine) == {lost: Outcome.DEAD}
    [letter] = await sql.fetch(LETTERS)
    assert letter["state"] == "dead"
    assert "sequence" in letter["error"]
    assert await close_overtaken(engine) == []
    assert await context(sql) == "text 2"

    await sql.execute(GO_ON)
    await set_collection(engine, "c", "cured")
    await drain(engine)
    assert await close_overtaken(engine) == [lost]
    assert await drift(sql) == []


async def test_of_one_batch_as_well_the_newer_event_with_the_lower_version_is_not_lost_without_a_word(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute(GO_ON)
    old = await set_collection(engine, "c", "old")
    await sql.execute(GO_BACK, 1)
    new = await set_collection(engine, "c", "new")
    assert new < old
    assert await outcomes(engine) == {old: Outcome.APPLIED, new: Outcome.DEAD}


async def test_an_event_that_comes_late_is_stale_and_no_more(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    held = await set_collection(engine, "c", "held back")
    async with sql.transaction():
        await sql.execute("SELECT FROM outbox_events WHERE id = $1 FOR UPDATE", held)
        await set_collection(engine, "c", "newer")
        await drain(engine)
    assert await outcomes(engine) == {held: Outcome.STALE}


async def test_where_an_older_release_applied_since_nobody_knows_what_is_newer(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c", "ours")
    await drain(engine)
    late = await set_collection(engine, "c", "comes late")
    await sql.execute("UPDATE applied_versions SET version = version + 2")  # and knows no other column
    assert await outcomes(engine) == {late: Outcome.STALE}


async def test_a_letter_is_never_replaced_by_another_events(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    died = await append_raw(sql, "one", updated_at=7)
    await outcomes(engine)
    before = await sql.fetch("SELECT * FROM outbox_dead_letters")
    await sql.execute(GO_BACK, died)
    again = await append_raw(sql, "another", updated_at=7)
    assert again == died
    assert await outcomes(engine) == {again: Outcome.POSTPONED}
    assert await sql.fetch("SELECT * FROM outbox_dead_letters") == before
    assert await sql.fetchval("SELECT aggregate_id FROM outbox_events") == "another"
