"""What a rollback removes, and what it keeps, counts and lists."""

from itertools import pairwise

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from tests.backfill.driving import backfilled
from tests.backfill.rows import insert_collection
from tests.draining import drain
from tests.drift import drift
from tests.legacy_rows import set_collection, target_rows
from tests.rollback.situations import (
    LINK,
    MAKE_MANY,
    guarded,
    legacy,
    ours,
    planned,
    rolled_back,
    shown,
    switched_on_again,
)
from worker.rollback.tally import LISTED_ROWS, KeptRow
from worker.rollback.walk import CHUNK_ROWS

FOUND = "was there before this system, or was put there by another program"
COLUMNS = ["tags", "linked_project_question_ids", "linked_project_hypothesis_ids"]
EMPTY = [None, "null", " null ", "[]", "[ ]", "{}", "{\n\t}", " [\n] "]
HELD = ['["a"]', "[null]", "[[]]", '{"a": 1}', '{"": null}', '{"\\u0000": 1}', '""', '"[]"', "0", "false"]


async def test_rows_that_this_system_made_go_with_their_guards_and_the_legacy_table_stays_to_the_byte(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    for key in ("a", "b"):
        await set_collection(engine, key, "text")
    await drain(engine)
    assert await drift(sql) == []
    before = await legacy(sql)
    done = await rolled_back(engine)
    assert done.counts() == {
        "removed": 2,
        "kept_enriched": 0,
        "kept_found": 0,
        "kept_links": 0,
        "discarded_events": 0,
        "dry_run": False,
    }
    assert (await shown(sql), await guarded(sql)) == ([], [])
    assert await legacy(sql) == before


async def test_a_long_rollback_says_how_far_it_is(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.rollback.walk.LOG_SECONDS", 0)
    await set_collection(engine, "a", "text")
    await drain(engine)
    with capture_logs() as lines:
        await rolled_back(engine)
    first, *chunks, last = [(line["event"], line.get("removed")) for line in lines]
    assert first == ("rollback_started", None)
    assert ("rollback_chunk", 1) in chunks
    assert last == ("rollback_finished", 1)


@pytest.mark.parametrize("column", COLUMNS)
async def test_a_row_that_holds_anything_stays_and_one_whose_json_is_empty_goes(
    engine: AsyncEngine, sql: asyncpg.Connection, column: str
) -> None:
    values = {f"empty {number}": value for number, value in enumerate(EMPTY)}
    values |= {f"held {number}": value for number, value in enumerate(HELD)}
    for key in values:
        await set_collection(engine, key)
    await drain(engine)
    for key, value in values.items():
        await sql.execute(
            f"UPDATE project_collections SET {column} = $1::json WHERE collection_id = $2",  # noqa: S608
            value,
            key,
        )
    done = await rolled_back(engine)
    assert (done.removed, done.kept_enriched, done.kept) == (len(EMPTY), len(HELD), len(HELD))
    held = sorted(key for key in values if key.startswith("held"))
    assert [key for key, _ in await shown(sql)] == held
    assert await guarded(sql) == held
    assert sorted(row.collection_id for row in done.listed) == held
    assert {row.reason for row in done.listed} == {f"was enriched: {column}"}


async def test_every_column_that_holds_something_is_named(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "one")
    await drain(engine)
    await sql.execute(
        """UPDATE project_collections SET tags = '["a"]', linked_project_question_ids = '{"q": 1}'"""
    )
    done = await rolled_back(engine)
    assert done.listed == [KeptRow("p1", "one", "was enriched: tags, linked_project_question_ids")]


async def test_rows_that_were_there_before_our_first_event_stay_as_they_are(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "written over")
    await sql.execute(LINK, "p1", "written over")
    await drain(engine)
    await set_collection(engine, "never touched")
    await sql.execute("DELETE FROM outbox_events")
    await sql.execute(LINK, "p1", "never touched")
    before = await target_rows(sql, "written over") + await target_rows(sql, "never touched")
    done = await rolled_back(engine)
    assert (done.removed, done.kept_found, done.kept) == (0, 2, 2)
    assert {row.reason for row in done.listed} == {FOUND}
    assert await target_rows(sql, "written over") + await target_rows(sql, "never touched") == before


async def test_a_row_that_somebody_made_after_we_had_removed_ours_stays(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "one")
    await drain(engine)
    await set_collection(engine, "one", is_active=False)
    await drain(engine)
    await sql.execute(LINK, "p1", "one")
    done = await rolled_back(engine)
    assert (done.removed, done.kept_found) == (0, 1)
    assert await guarded(sql) == ["one"]


async def test_a_row_that_somebody_made_after_ours_had_gone_with_its_collection_stays(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    for key in ("made again", "ours again"):
        await set_collection(engine, key)
    await drain(engine)
    await sql.execute("DELETE FROM collections")  # the target's rows go with it
    for key in ("made again", "ours again"):
        await set_collection(engine, key)
    await sql.execute("DELETE FROM outbox_events WHERE aggregate_id = 'made again'")
    await sql.execute(LINK, "p1", "made again")
    await drain(engine)
    done = await rolled_back(engine)
    assert (done.removed, done.kept_found) == (1, 1)
    assert await shown(sql) == [("made again", "p1")]


async def test_a_row_that_somebody_made_and_we_wrote_over_stays(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "one")
    await drain(engine)
    await sql.execute("DELETE FROM project_collections")
    await sql.execute(LINK, "p1", "one")
    await set_collection(engine, "one", "written over")
    await drain(engine)
    done = await rolled_back(engine)
    assert (done.removed, done.kept_found) == (0, 1)


async def test_a_row_that_we_made_after_theirs_had_gone_goes(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "one")
    await sql.execute(LINK, "p1", "one")
    await drain(engine)
    await sql.execute("DELETE FROM project_collections")
    await set_collection(engine, "one", "made by us")
    await drain(engine)
    done = await rolled_back(engine)
    assert (done.removed, done.kept) == (1, 0)


async def test_what_was_in_sync_before_us_stays_and_what_becomes_of_it_later_is_not_ours(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    for key in ("never changed", "moved by us", "moved by others"):
        await insert_collection(sql, key, "p1")
    await backfilled(engine)
    await set_collection(engine, "moved by us", project_id="p2")
    await drain(engine)
    done = await rolled_back(engine)
    assert (done.removed, done.kept_found, done.kept) == (1, 2, 2)
    assert await shown(sql) == [("moved by others", "p1"), ("never changed", "p1")]
    assert await guarded(sql) == []

    for table in ("collections", "project_collections"):
        await sql.execute(f"UPDATE {table} SET project_id = 'p2' WHERE collection_id = 'moved by others'")  # noqa: S608
    await sql.execute(LINK, "p1", "moved by others")
    await switched_on_again(engine, sql)
    assert await shown(sql) == [
        ("moved by others", "p1"),
        ("moved by others", "p2"),
        ("moved by us", "p2"),
        ("never changed", "p1"),
    ]


async def test_links_to_other_projects_stay_whatever_becomes_of_the_home_row(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "one")
    await set_collection(engine, "not ours")
    await drain(engine)
    await sql.execute("DELETE FROM applied_versions WHERE collection_id = 'not ours'")
    for key in ("one", "not ours"):
        await sql.execute(LINK, "p2", key)
    done = await rolled_back(engine)
    assert (done.removed, done.kept_links, done.kept_found) == (1, 2, 1)
    assert await shown(sql) == [("not ours", "p1"), ("not ours", "p2"), ("one", "p2")]
    assert KeptRow("p2", "one", "links the collection to another project") in done.listed


async def test_the_home_is_the_one_that_was_applied_last(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "one")
    await drain(engine)
    await set_collection(engine, "one", project_id="p2")
    await drain(engine)
    await sql.execute("UPDATE collections SET project_id = 'p3'")  # by hand, and not noticed yet
    for project in ("p1", "p3"):
        await sql.execute(LINK, project, "one")
    looked = await planned(engine)
    done = await rolled_back(engine)
    assert (done.removed, done.kept_links, done.kept_found) == (1, 1, 1)
    assert looked.counts() == done.counts() | {"dry_run": True}
    assert await shown(sql) == [("one", "p1"), ("one", "p3")]


async def test_tombstones_go_and_the_guards_of_rows_that_stay_remain(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    for key in ("deleted", "enriched", "made", "removed by hand"):
        await set_collection(engine, key)
    await drain(engine)
    await set_collection(engine, "deleted", is_active=False)
    await drain(engine)
    await sql.execute("DELETE FROM project_collections WHERE collection_id = 'removed by hand'")
    await sql.execute("UPDATE project_collections SET tags = '[1]' WHERE collection_id = 'enriched'")
    assert (await rolled_back(engine)).removed == 1
    assert await guarded(sql) == ["enriched"]


async def test_a_second_rollback_removes_nothing_and_lists_the_same(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    for key in ("enriched", "found", "linked", "made"):
        await set_collection(engine, key)
    await sql.execute(LINK, "p1", "found")
    await sql.execute(LINK, "p2", "linked")
    await drain(engine)
    await sql.execute("UPDATE project_collections SET tags = '[1]' WHERE collection_id = 'enriched'")
    first = await rolled_back(engine)
    assert (first.removed, first.kept_enriched, first.kept_found, first.kept_links) == (2, 1, 1, 1)
    state = await ours(sql)
    second = await rolled_back(engine)
    assert second.counts() == first.counts() | {"removed": 0}
    assert second.listed == first.listed
    assert await ours(sql) == state


async def test_more_rows_than_one_chunk_are_all_counted_and_the_first_of_those_that_stay_are_listed(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    rows = 2 * CHUNK_ROWS + 1
    await sql.execute(MAKE_MANY, rows)
    await sql.execute("UPDATE project_collections SET tags = '[1]' WHERE collection_id LIKE '%00'")
    done = await rolled_back(engine)
    assert (done.removed, done.kept_enriched) == (rows - rows // 100, rows // 100)
    assert [row.collection_id for row in done.listed] == [
        f"c{number * 100:06}" for number in range(1, LISTED_ROWS + 1)
    ]
    assert len(await guarded(sql)) == len(await shown(sql)) == rows // 100


async def test_pending_events_are_discarded_so_that_no_old_state_comes_back(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "one", "old")
    await drain(engine)
    await set_collection(engine, "one", "newer")
    await set_collection(engine, "two")
    done = await rolled_back(engine)
    assert (done.removed, done.discarded_events) == (1, 2)
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0
    assert await shown(sql) == []


async def test_after_a_rollback_the_system_can_be_switched_on_again(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    for key in ("found", "made", "pending", "enriched"):
        await set_collection(engine, key, "text")
    await sql.execute(LINK, "p1", "found")
    await drain(engine)
    await sql.execute("UPDATE project_collections SET tags = '[1]' WHERE collection_id = 'enriched'")
    await set_collection(engine, "pending", "newer")
    await set_collection(engine, "deleted", is_active=False)
    await rolled_back(engine)
    await sql.execute(LINK, "p1", "made")  # somebody else is quicker: now it was there before us
    await switched_on_again(engine, sql)
    assert await drift(sql) == []
    found = await sql.fetch("SELECT collection_id FROM applied_versions WHERE found_row ORDER BY 1")
    assert [row["collection_id"] for row in found] == ["found", "made"]
    again = await rolled_back(engine)
    assert (again.removed, again.kept_found, again.kept_enriched) == (1, 2, 1)


async def test_a_dry_run_says_the_same_and_changes_nothing(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute(MAKE_MANY, CHUNK_ROWS + 1)
    await set_collection(engine, "pending")
    await sql.execute("UPDATE project_collections SET tags = '[1]' WHERE collection_id LIKE '%00'")
    await sql.execute(LINK, "p2", "pending")
    before = (await legacy(sql), await ours(sql))
    looked = await planned(engine)
    assert (await legacy(sql), await ours(sql)) == before
    assert looked.dry_run
    assert min(looked.removed, looked.kept_enriched, looked.kept_links, looked.discarded_events) > 0
    done = await rolled_back(engine)
    assert looked.counts() == done.counts() | {"dry_run": True}
    assert looked.listed == done.listed


async def test_every_transaction_of_a_dry_run_is_read_only(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute(MAKE_MANY, CHUNK_ROWS + 1)
    sent: list[str] = []
    event.listen(engine.sync_engine, "begin", lambda _connection: sent.append("BEGIN"))
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *sending: sent.append(sending[2]))
    await planned(engine)
    after_begin = [following for begin, following in pairwise(sent) if begin == "BEGIN"]
    assert len(after_begin) > 4
    assert set(after_begin) == {"SET TRANSACTION READ ONLY"}


async def test_an_empty_database_has_nothing_to_roll_back(engine: AsyncEngine) -> None:
    done = await rolled_back(engine)
    assert (done.removed, done.kept, done.discarded_events, done.listed) == (0, 0, 0, [])
