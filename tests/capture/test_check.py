"""What the capture takes for said: an event of this very transaction that carries what the row holds last."""

import asyncio

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.events import EventType, Source
from shared.outbox import append_event
from tests.capture.conftest import Capture
from tests.capture.writers import BULK, bulk_insert, insert, runs
from tests.draining import drain
from tests.drift import drift
from tests.engines import COUNTS_AT_ONCE
from tests.processes import HANG_SECONDS
from tests.twins.capture import with_function

SOURCES = "SELECT source FROM outbox_events WHERE aggregate_id = 'c1' ORDER BY id"
LAST = """
    SELECT event_type, payload ->> 'research_context' AS said FROM outbox_events
    WHERE aggregate_id = 'c1' ORDER BY id DESC LIMIT 1
"""
CHANGE = "UPDATE collections SET description = 'changed' WHERE collection_id = 'c1'"
AGAIN = "UPDATE collections SET description = 'again' WHERE collection_id = 'c1'"
DEACTIVATE = "UPDATE collections SET is_active = false WHERE collection_id = 'c1'"
APPEND = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.updated', 'api', jsonb_build_object(
        'project_id', project_id, 'research_context', description,
        'created_at', created_at, 'updated_at', updated_at
    ) FROM collections WHERE collection_id = 'c1'
"""
APPEND_BEFOREHAND = APPEND.replace("'research_context', description", "'research_context', 'changed'")
APPEND_DELETION = APPEND.replace("collection.updated", "collection.deleted")
# How an application may end with an event that says it all, and with none too many.
WELL_SAID = {
    "after its write": [CHANGE, APPEND],
    "before its write": [APPEND_BEFOREHAND, CHANGE],
    "once for two writes": [CHANGE, AGAIN, APPEND],
    "in a savepoint": [CHANGE, "SAVEPOINT one", APPEND, "RELEASE one"],
    "writing in a savepoint": ["SAVEPOINT one", CHANGE, APPEND, "RELEASE one"],
    "write and event in two savepoints": ["SAVEPOINT one", CHANGE, "RELEASE one", "SAVEPOINT two", APPEND],
    "by what was undone": [CHANGE, APPEND, "SAVEPOINT one", AGAIN, "ROLLBACK TO one"],
    "a deletion": [DEACTIVATE, APPEND_DELETION],
    "in another time zone": ["SET LOCAL TimeZone = 'Asia/Tokyo'", CHANGE, APPEND],
}
# And how not: one event is of the capture's making.
NOT_SAID = {
    "a change behind its event": [CHANGE, APPEND, AGAIN],
    "an event of the state before": [APPEND, CHANGE],
    "an event that was undone": [CHANGE, "SAVEPOINT one", APPEND, "ROLLBACK TO one"],
    "an update for a deletion": [DEACTIVATE, APPEND],
    "a deletion for an update": [CHANGE, APPEND_DELETION],
    "a malformed event": [CHANGE, APPEND.replace("'research_context', description,", "")],
    "a home that it left": [APPEND, "UPDATE collections SET project_id = 'p2' WHERE collection_id = 'c1'"],
}


@pytest.fixture(autouse=True)
async def _there(sql: asyncpg.Connection, _seeded: None) -> None:
    await sql.execute(insert("c1"))


@pytest.mark.parametrize("how", WELL_SAID)
@pytest.mark.parametrize("mode", ["append", "refuse"])
async def test_who_appends_is_left_alone(
    mode: str, how: str, sql: asyncpg.Connection, capture: Capture
) -> None:
    await capture(mode)
    refused: object = None
    try:
        await runs(*WELL_SAID[how])(sql)
    except asyncpg.RestrictViolationError as error:
        refused = error
    assert refused is None
    assert [row["source"] for row in await sql.fetch(SOURCES)] == ["api"]
    assert await sql.fetchval("SELECT count(*) FROM captured_writes") == 0


async def test_an_event_of_the_release_before_that_lacks_a_new_column_says_enough(
    sql: asyncpg.Connection, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = ("'updated_at', updated_at)", "'updated_at', updated_at, 'color', color)")
    with_function(newer)(monkeypatch)
    await capture("append")
    await runs(CHANGE, APPEND)(sql)
    assert [row["source"] for row in await sql.fetch(SOURCES)] == ["api"]


@pytest.mark.parametrize("how", NOT_SAID)
async def test_what_an_event_does_not_say_is_captured(
    how: str, sql: asyncpg.Connection, capture: Capture, engine: AsyncEngine
) -> None:
    await capture("append")
    await runs(*NOT_SAID[how])(sql)
    sources = [row["source"] for row in await sql.fetch(SOURCES)]
    assert sources.count("capture") == 1
    assert sources[-1] == "capture"
    await drain(engine)
    assert await drift(sql) == []


async def test_an_event_that_another_transaction_appended_is_none_of_this_one(
    sql: asyncpg.Connection, capture: Capture
) -> None:
    """It says the very same, and waits; but a live write may have been applied since that is newer."""
    await capture("append")
    await runs(APPEND)(sql)
    await runs(CHANGE)(sql)
    await runs("UPDATE collections SET description = 'text' WHERE collection_id = 'c1'")(sql)
    assert [row["source"] for row in await sql.fetch(SOURCES)] == ["api", "capture", "capture"]
    await sql.execute("DELETE FROM outbox_events WHERE source = 'capture'")
    await runs(CHANGE)(sql)
    await sql.execute("DELETE FROM outbox_events WHERE source = 'capture'")
    await runs("UPDATE collections SET description = 'text' WHERE collection_id = 'c1'")(sql)
    assert [row["source"] for row in await sql.fetch(SOURCES)] == ["api", "capture"]


@pytest.mark.parametrize(("mode", "sources"), [("append", ["capture", "api"]), ("count", ["api"])])
async def test_constraints_that_are_made_immediate_cost_a_second_event_and_no_more(
    mode: str, sources: list[str], sql: asyncpg.Connection, capture: Capture, engine: AsyncEngine
) -> None:
    await capture(mode)
    await runs("SET CONSTRAINTS ALL IMMEDIATE", CHANGE, APPEND)(sql)
    assert [row["source"] for row in await sql.fetch(SOURCES)] == sources
    await drain(engine)
    assert await drift(sql) == []


async def test_many_changes_of_one_row_in_a_transaction_get_one_event_of_how_it_ends(
    sql: asyncpg.Connection, capture: Capture
) -> None:
    await capture("append")
    await runs(CHANGE, AGAIN, CHANGE, DEACTIVATE, AGAIN)(sql)
    assert [row["source"] for row in await sql.fetch(SOURCES)] == ["capture"]
    assert tuple(await sql.fetchrow(LAST)) == ("collection.deleted", "again")


async def test_of_two_captured_writers_the_one_that_commits_last_has_the_higher_id(
    sql: asyncpg.Connection, database_url: str, capture: Capture, engine: AsyncEngine
) -> None:
    """A captured write draws its id at its end: what another row's writer draws meanwhile is lower."""
    await capture("append")
    other = await asyncpg.connect(database_url)
    async with sql.transaction():
        await sql.execute(CHANGE)
        waits = asyncio.create_task(other.execute(AGAIN))
        async with engine.begin() as connection:
            await connection.exec_driver_sql(insert("c2"))
            drawn_meanwhile = await append_event(connection, "c2", EventType.CREATED, Source.API)
    async with asyncio.timeout(HANG_SECONDS):
        await waits
    await other.close()
    ids = await sql.fetch("SELECT id, payload ->> 'research_context' AS said FROM outbox_events ORDER BY id")
    assert [row["said"] for row in ids] == ["text", "changed", "again"]
    assert ids[0]["id"] == drawn_meanwhile
    await drain(engine)
    assert await drift(sql) == []


async def test_an_event_carries_the_trace_that_its_session_names_and_no_nonsense(
    sql: asyncpg.Connection, capture: Capture
) -> None:
    await capture("append")
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    for given, stored in ((trace, trace), ("nonsense", None), ("", None)):
        await runs(f"SET LOCAL collection_sync.traceparent = '{given}'", CHANGE)(sql)
        event = await sql.fetchrow("DELETE FROM outbox_events RETURNING traceparent, schema_version")
        assert tuple(event) == (stored, 1)
        await runs("UPDATE collections SET description = 'text' WHERE collection_id = 'c1'")(sql)
        await sql.execute("DELETE FROM outbox_events")


@COUNTS_AT_ONCE
async def test_it_reads_no_table_from_end_to_end(sql: asyncpg.Connection, capture: Capture) -> None:
    """Not even by plans from the time when the tables were empty."""
    await sql.execute("DELETE FROM collections")
    await sql.execute("VACUUM ANALYZE collections")
    await sql.execute("VACUUM ANALYZE outbox_events")
    await capture("append")
    scans = "SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE relname IN ('collections', 'outbox_events')"
    await sql.execute("SELECT pg_stat_force_next_flush()")
    before = await sql.fetchval(scans)
    for number in range(20):
        await sql.execute(insert(f"n{number}"))
    await sql.execute("SELECT pg_stat_force_next_flush()")
    assert await sql.fetchval(scans) == before
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 20


@COUNTS_AT_ONCE
async def test_a_bulk_write_reads_of_the_outbox_what_is_of_each_row_and_nothing_else(
    sql: asyncpg.Connection, database_url: str, capture: Capture
) -> None:
    """Whatever PostgreSQL planned while the outbox was empty, or while none of its events was committed."""
    await sql.execute("VACUUM ANALYZE outbox_events")
    await capture("append")
    read = "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'outbox_events'"
    other = await asyncpg.connect(database_url)
    await other.execute("SELECT pg_stat_force_next_flush()")
    before = await other.fetchval(read)
    async with sql.transaction():
        await sql.execute("SET CONSTRAINTS ALL IMMEDIATE")
        await sql.execute(bulk_insert(BULK))
        await other.execute("VACUUM ANALYZE outbox_events")
        await sql.execute("UPDATE collections SET description = 'x' WHERE collection_id LIKE 'bulk%'")
        await sql.execute("SELECT pg_stat_force_next_flush()")
    assert await other.fetchval(read) - before <= 3 * BULK
    assert await other.fetchval("SELECT count(*) FROM outbox_events") == 2 * BULK
    await other.close()
