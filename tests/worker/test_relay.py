import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.events import EventType, Source
from shared.outbox import append_event
from shared.postgres.database import driver_connection
from tests.draining import drain, run_once
from tests.legacy_rows import set_collection, target_rows
from tests.processes import HANG_SECONDS
from tests.worker.events import append_again, append_raw, outcomes
from worker.relay.apply import UnappliedError
from worker.relay.claim import UnacknowledgedError, acknowledge
from worker.relay.outcomes import Outcome


async def test_an_insert_an_update_and_a_delete_reach_the_target(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", "first")
    await drain(engine)
    (row,) = await target_rows(sql, "c1")
    legacy = await sql.fetchrow("SELECT * FROM collections WHERE collection_id = 'c1'")
    assert legacy is not None
    assert (row["project_id"], row["research_context"]) == ("p1", "first")
    assert (row["created_at"], row["updated_at"]) == (legacy["created_at"], legacy["updated_at"])
    assert [json.loads(row[name]) for name in ("tags", "linked_project_question_ids")] == [[], {}]

    await set_collection(engine, "c1", "second")
    await drain(engine)
    assert [row["research_context"] for row in await target_rows(sql, "c1")] == ["second"]

    await set_collection(engine, "c1", "second", is_active=False)
    await drain(engine)
    assert await target_rows(sql, "c1") == []
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0


async def test_an_update_of_a_collection_without_a_junction_row_creates_it(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute(
        "INSERT INTO collections (collection_id, project_id, collection_name, created_by, created_at)"
        " VALUES ('old', 'p1', 'before phase 1', 'owner', '2025-10-02 10:11:12.345678+00')"
    )
    await set_collection(engine, "old", "now described")
    await drain(engine)
    (row,) = await target_rows(sql, "old")
    assert row["created_at"].isoformat() == "2025-10-02T10:11:12.345678+00:00"
    assert row["research_context"] == "now described"


async def test_links_to_other_projects_and_tags_and_mappings_are_never_touched(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", "first")
    await drain(engine)
    enrich = (
        "tags = '[\"kept\"]', linked_project_question_ids = '{\"q\": 1}',"
        " linked_project_hypothesis_ids = '{\"h\": 2}'"
    )
    await sql.execute(f"UPDATE project_collections SET {enrich}")  # noqa: S608 - a constant
    await sql.execute(
        "INSERT INTO project_collections (project_id, collection_id, research_context, tags)"
        " VALUES ('p2', 'c1', 'their own words', '[\"theirs\"]')"
    )
    (_, link) = await target_rows(sql, "c1")

    await set_collection(engine, "c1", "second")
    await drain(engine)
    home, same_link = await target_rows(sql, "c1")
    assert home["research_context"] == "second"
    assert json.loads(home["tags"]) == ["kept"]
    assert json.loads(home["linked_project_question_ids"]) == {"q": 1}
    assert json.loads(home["linked_project_hypothesis_ids"]) == {"h": 2}
    assert same_link == link

    await set_collection(engine, "c1", "second", is_active=False)
    await drain(engine)
    assert await target_rows(sql, "c1") == [link]


async def test_a_link_to_where_a_collection_was_deleted_stays_when_it_comes_back_elsewhere(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", project_id="p1")
    await set_collection(engine, "c1", project_id="p1", is_active=False)
    await drain(engine)
    await sql.execute("INSERT INTO project_collections (project_id, collection_id) VALUES ('p1', 'c1')")
    await set_collection(engine, "c1", project_id="p2")
    await drain(engine)
    assert [row["project_id"] for row in await target_rows(sql, "c1")] == ["p1", "p2"]


async def test_null_timestamps_are_carried_over(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await sql.execute(
        "INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active,"
        " created_at, updated_at) VALUES ('c1', 'p1', 'name', 'owner', true, NULL, NULL)"
    )
    async with engine.begin() as connection:
        await append_event(connection, "c1", EventType.UPDATED, Source.API)
    await drain(engine)
    (row,) = await target_rows(sql, "c1")
    assert (row["created_at"], row["updated_at"], row["research_context"]) == (None, None, None)


async def test_an_event_of_a_project_that_vanished_is_obsolete(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    good = await set_collection(engine, "c1", "stays")
    homeless = await append_raw(sql, "c1x", project_id="vanished")
    gone = await set_collection(engine, "c2", "goes")
    await sql.execute("DELETE FROM collections WHERE collection_id = 'c2'")
    assert await outcomes(engine) == {
        good: Outcome.APPLIED,
        homeless: Outcome.OBSOLETE,
        gone: Outcome.OBSOLETE,
    }
    assert await sql.fetchval("SELECT count(*) FROM outbox_dead_letters") == 0
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0


async def test_a_collection_that_moved_leaves_its_old_home(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", "here", project_id="p1")
    await drain(engine)
    await set_collection(engine, "c1", "in between", project_id="p2")
    await set_collection(engine, "c1", "there", project_id="p3")
    await drain(engine)
    assert [row["project_id"] for row in await target_rows(sql, "c1")] == ["p3"]


async def test_a_collection_deleted_after_it_moved_leaves_both_homes(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", "here", project_id="p1")
    await drain(engine)
    await set_collection(engine, "c1", "there", project_id="p2", is_active=False)
    await drain(engine)
    assert await target_rows(sql, "c1") == []


async def test_the_same_event_twice_is_applied_once(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await set_collection(engine, "c1", "old")
    event = await sql.fetchrow("SELECT * FROM outbox_events")
    assert event is not None
    await drain(engine)
    await append_again(sql, event["id"], dict(event))
    assert await outcomes(engine) == {event["id"]: Outcome.STALE}


async def test_an_older_event_that_comes_late_changes_nothing(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", "old")
    event = await sql.fetchrow("DELETE FROM outbox_events RETURNING *")
    assert event is not None
    await set_collection(engine, "c1", "new")
    await drain(engine)
    await append_again(sql, event["id"], dict(event))
    assert await outcomes(engine) == {event["id"]: Outcome.STALE}
    assert [row["research_context"] for row in await target_rows(sql, "c1")] == ["new"]


async def test_an_older_event_does_not_bring_a_deleted_row_back(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", "old")
    event = await sql.fetchrow("DELETE FROM outbox_events RETURNING *")
    assert event is not None
    await set_collection(engine, "c1", "old", is_active=False)
    await drain(engine)
    await append_again(sql, event["id"], dict(event))
    assert await outcomes(engine) == {event["id"]: Outcome.STALE}
    assert await target_rows(sql, "c1") == []


async def test_only_the_newest_event_of_a_collection_in_a_batch_is_applied(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    ids = [await set_collection(engine, "c1", f"text {number}") for number in range(5)]
    assert list((await outcomes(engine)).items()) == [
        (ids[4], Outcome.APPLIED),
        *((event_id, Outcome.CONFLATED) for event_id in ids[:4]),
    ]
    assert [row["research_context"] for row in await target_rows(sql, "c1")] == ["text 4"]


async def test_live_events_are_claimed_before_repairs_and_repairs_before_backfill(
    engine: AsyncEngine,
) -> None:
    backfilled = await set_collection(engine, "c1", source=Source.BACKFILL)
    repaired = await set_collection(engine, "c2", source=Source.REPAIR)
    live = await set_collection(engine, "c3", source=Source.API)
    claimed = [(await run_once(engine, 1)).events[0].id for _ in range(3)]
    assert claimed == [live, repaired, backfilled]


async def test_claim_skips_rows_locked_by_another_worker(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    held = await set_collection(engine, "c1", "held")
    free = await set_collection(engine, "c2", "free")
    async with sql.transaction():
        await sql.execute("SELECT 1 FROM outbox_events WHERE id = $1 FOR UPDATE", held)
        assert await outcomes(engine) == {free: Outcome.APPLIED}
    assert await outcomes(engine) == {held: Outcome.APPLIED}


async def test_an_event_that_commits_late_is_applied_although_newer_ones_were_before(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute(
        "INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)"
        " VALUES ('late', 'p1', 'late', 'owner', true)"
    )
    async with sql.transaction():
        late = await append_raw(sql, "late")
        early = await set_collection(engine, "c2", "later id, earlier commit")
        assert early > late
        assert await outcomes(engine) == {early: Outcome.APPLIED}
    assert await outcomes(engine) == {late: Outcome.APPLIED}


@pytest.mark.parametrize(
    ("event_type", "payload"),
    [
        ("collection.renamed", {}),
        ("collection.updated", {"project_id": "absent"}),
        ("collection.updated", {"project_id": None}),
        ("collection.updated", {"research_context": "absent"}),
        ("collection.updated", {"research_context": {"nested": True}}),
        ("collection.updated", {"created_at": 17}),
        ("collection.updated", {"created_at": "not a time"}),
        ("collection.deleted", {"updated_at": "absent"}),
    ],
)
async def test_one_poison_event_is_set_aside_and_the_others_of_its_batch_are_applied(
    engine: AsyncEngine, sql: asyncpg.Connection, event_type: str, payload: dict[str, object]
) -> None:
    for number in range(20):
        await set_collection(engine, f"before-{number}")
    await sql.execute(
        "INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)"
        " VALUES ('poisoned', 'p1', 'poisoned', 'owner', true)"
    )
    poison = await append_raw(sql, "poisoned", event_type, **payload)
    for number in range(20):
        await set_collection(engine, f"after-{number}")

    found = await outcomes(engine)
    assert found.pop(poison) is Outcome.DEAD
    assert Counter(found.values()) == {Outcome.APPLIED: 40}
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0
    letter = await sql.fetchrow("SELECT * FROM outbox_dead_letters")
    assert letter is not None
    assert (letter["id"], letter["aggregate_id"], letter["event_type"]) == (poison, "poisoned", event_type)
    assert letter["error"]


async def test_when_the_newest_event_is_poison_the_one_before_it_is_applied(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    older = await set_collection(engine, "c1", "oldest")
    good = await set_collection(engine, "c1", "good")
    poison = await append_raw(sql, "c1", updated_at="never")
    found = await outcomes(engine)
    assert found == {older: Outcome.CONFLATED, good: Outcome.APPLIED, poison: Outcome.DEAD}
    assert [row["research_context"] for row in await target_rows(sql, "c1")] == ["good"]


async def test_a_trigger_of_the_target_that_refuses_a_row_does_not_stop_the_others(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.research_context = 'refused' THEN RAISE EXCEPTION 'we do not like it'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON project_collections FOR EACH ROW EXECUTE FUNCTION refuse();
    """)
    refused = await set_collection(engine, "c1", "refused")
    liked = await set_collection(engine, "c2", "liked")
    assert await outcomes(engine) == {refused: Outcome.DEAD, liked: Outcome.APPLIED}
    assert await sql.fetchval("SELECT sqlstate FROM outbox_dead_letters") == "P0001"

    healed = await set_collection(engine, "c1", "liked")
    assert await outcomes(engine) == {healed: Outcome.APPLIED}


async def test_a_target_that_drops_a_row_silently_keeps_the_batch_from_committing(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute("""
        CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
        CREATE TRIGGER swallow BEFORE INSERT ON project_collections FOR EACH ROW EXECUTE FUNCTION swallow();
    """)
    await set_collection(engine, "c1", "swallowed")
    with pytest.raises(UnappliedError):
        await run_once(engine)
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 1
    assert await sql.fetchval("SELECT count(*) FROM applied_versions") == 0


async def test_an_event_that_the_guard_swallows_is_not_taken_for_stale(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", "first")
    await drain(engine)
    await sql.execute("""
        CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
        CREATE TRIGGER swallow BEFORE INSERT OR UPDATE ON applied_versions
            FOR EACH ROW EXECUTE FUNCTION swallow();
    """)
    for collection_id in ("c1", "c2"):
        await set_collection(engine, collection_id, "swallowed")
    with pytest.raises(UnappliedError):
        await run_once(engine)
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 2
    await sql.execute("DROP TRIGGER swallow ON applied_versions")
    assert await drain(engine) == {Outcome.APPLIED: 2}


async def test_a_fault_that_is_no_row_s_fault_leaves_every_event_pending(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", "waits")
    await sql.execute("ALTER TABLE project_collections RENAME TO project_collections_away")
    with pytest.raises(Exception, match="project_collections"):
        await run_once(engine)
    await sql.execute("ALTER TABLE project_collections_away RENAME TO project_collections")
    assert await sql.fetchval("SELECT count(*) FROM outbox_dead_letters") == 0
    assert Counter((await outcomes(engine)).values()) == {Outcome.APPLIED: 1}


async def test_an_event_that_vanished_from_under_its_lock_keeps_the_batch_from_committing(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def acknowledge_after_loss(connection: asyncpg.Connection, events: Sequence[Any]) -> None:
        await connection.execute("DELETE FROM outbox_events")
        await acknowledge(connection, events)

    await set_collection(engine, "c1")
    monkeypatch.setattr("worker.relay.run.acknowledge", acknowledge_after_loss)
    with pytest.raises(UnacknowledgedError):
        await run_once(engine)


async def test_a_writer_that_holds_the_collection_s_row_does_not_hold_up_the_worker(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", "first")
    async with sql.transaction():
        await sql.execute("SELECT 1 FROM collections WHERE collection_id = 'c1' FOR NO KEY UPDATE")
        async with asyncio.timeout(HANG_SECONDS):
            assert await drain(engine) == {Outcome.APPLIED: 1}


async def test_a_batch_costs_the_same_number_of_statements_however_many_events_it_has(
    engine: AsyncEngine,
) -> None:
    statements: list[str] = []
    async with driver_connection(engine) as connection:
        connection.add_query_logger(lambda record: statements.append(record.query))
    counted = []
    for size in (2, 1, 300):  # the first also asks for types, once for each connection
        for number in range(size):
            await set_collection(engine, f"{size}-{number}")
        statements.clear()
        await run_once(engine)
        await asyncio.sleep(0)  # the driver tells of a statement a moment later
        counted.append(len(statements))
    # BEGIN, claim, guard, upsert, acknowledge, COMMIT
    assert counted[1:] == [6, 6]


async def found_row(sql: asyncpg.Connection, collection_id: str) -> bool | None:
    found: bool | None = await sql.fetchval(
        "SELECT found_row FROM applied_versions WHERE collection_id = $1", collection_id
    )
    return found


LINK = (
    "INSERT INTO project_collections (project_id, collection_id, research_context) VALUES ($1, $2, 'theirs')"
)


async def test_the_guard_remembers_whether_the_home_row_was_there_before_us(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    for collection_id in ("ours", "theirs"):
        await set_collection(engine, collection_id, "first")
    await sql.execute(LINK, "p1", "theirs")
    await drain(engine)
    for collection_id in ("ours", "theirs"):
        await set_collection(engine, collection_id, "second")
    await drain(engine)
    assert (await found_row(sql, "ours"), await found_row(sql, "theirs")) == (False, True)

    await set_collection(engine, "theirs", is_active=False)
    await drain(engine)  # their row is gone now
    await set_collection(engine, "theirs", "made anew")
    await drain(engine)
    assert await found_row(sql, "theirs") is False


async def test_a_link_that_becomes_the_home_row_was_there_before_us(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", "at home")
    await drain(engine)
    await sql.execute(LINK, "p2", "c1")
    await set_collection(engine, "c1", "moved", project_id="p2")
    await drain(engine)
    assert await found_row(sql, "c1") is True
    await set_collection(engine, "c1", "moved on", project_id="p3")
    await drain(engine)
    assert await found_row(sql, "c1") is False
