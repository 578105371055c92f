"""The plain way: what others do between its claim and its writes, and what it leaves to the ordinary way."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.draining import drain, plain_once, run_once
from tests.drift import drift
from tests.legacy_rows import set_collection, target_rows
from tests.race import freezing
from tests.worker.events import append_raw, outcomes
from worker.relay.batch import Batch
from worker.relay.outcomes import Outcome
from worker.relay.plain import FEW

CLAIMED = "acknowledge: before"  # and no guard was looked at yet
DROP_ROWS = """
    CREATE FUNCTION drop_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER drop_row BEFORE {} FOR EACH ROW EXECUTE FUNCTION drop_row()
"""
STATE = """
    SELECT (SELECT array_agg(t)::text FROM project_collections AS t),
        (SELECT array_agg(v)::text FROM applied_versions AS v),
        (SELECT array_agg(id) FROM outbox_events)
"""

Meanwhile = Callable[[], Awaitable[object]]


async def settled_by(engine: AsyncEngine) -> list[int] | None:
    """Run a batch the plain way; return what it settled, None where it failed."""
    batch = await plain_once(engine)
    return None if batch is None else list(batch.settlements)


async def plain_with(
    engine: AsyncEngine, sql: asyncpg.Connection, meanwhile: Meanwhile, point: str = CLAIMED
) -> Batch | None:
    """Run a batch the plain way, and have something done while it stands at a point."""
    async with freezing.frozen(sql, point):
        batch = asyncio.create_task(plain_once(engine))
        await freezing.arrived(sql, point)
        await meanwhile()
    return await batch


@pytest.fixture
async def _there(engine: AsyncEngine, sql: asyncpg.Connection, _seeded: None) -> None:
    """A collection that is there and applied, and all points freezable."""
    await set_collection(engine, "c", "first")
    await drain(engine)
    await freezing.install(sql)


async def test_creations_updates_and_deletions_are_settled_as_the_ordinary_way_would(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    for collection_id in ("updated", "deleted"):
        await set_collection(engine, collection_id, "first")
    assert len(await settled_by(engine) or []) == 2
    newest = [
        await set_collection(engine, "created", "text"),
        await set_collection(engine, "updated", "second"),
        await set_collection(engine, "deleted", is_active=False),
    ]
    batch = await plain_once(engine)
    assert batch is not None
    assert [event.id for event in batch.events] == newest
    assert not batch.is_full
    assert 0 < batch.claim_seconds < batch.duration_seconds
    assert await drift(sql) == []
    guards = await sql.fetch("""
        SELECT version, is_deleted, found_row, guard.project_id, previous_project_id, dated_version,
            row_id IS NOT DISTINCT FROM target.id, appended_at IS NOT NULL
        FROM applied_versions AS guard LEFT JOIN project_collections AS target USING (collection_id)
        ORDER BY version
    """)
    assert [tuple(guard) for guard in guards] == [
        (newest[0], False, False, "p1", None, newest[0], True, True),
        (newest[1], False, False, "p1", None, newest[1], True, True),
        (newest[2], True, False, "p1", None, newest[2], False, True),
    ]
    assert (await plain_once(engine)) is not None


async def test_what_is_not_plain_is_left_as_it_is(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    for collection_id in ("moved", "back"):
        await set_collection(engine, collection_id, "first")
    await drain(engine)
    await set_collection(engine, "back", is_active=False)
    await drain(engine)
    await sql.execute("""
        INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
        VALUES ('belied', 'p1', '', 'owner', true)
    """)
    left = [
        await set_collection(engine, "twice", "older"),
        await set_collection(engine, "twice", "newer"),
        await set_collection(engine, "moved", "first", project_id="p2"),
        await set_collection(engine, "back", "second"),
        await set_collection(engine, "found", "text"),
        await set_collection(engine, "unknown", is_active=False),
        await append_raw(sql, "belied", project_id="p3"),
        await append_raw(sql, "malformed", "collection.vanished"),
    ]
    await sql.execute("INSERT INTO project_collections (project_id, collection_id) VALUES ('p1', 'found')")
    assert await settled_by(engine) == []
    assert {event_id for (event_id,) in await sql.fetch("SELECT id FROM outbox_events")} == set(left)
    await drain(engine)
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0


async def test_no_more_than_a_few_are_taken(engine: AsyncEngine) -> None:
    ids = [await set_collection(engine, f"c{number}") for number in range(FEW + 1)]
    batch = await plain_once(engine)
    assert batch is not None
    assert batch.is_full
    assert list(batch.settlements) == ids[:FEW]


@pytest.mark.usefixtures("_there")
async def test_an_event_is_stale_whose_newer_one_was_applied_since_it_was_claimed(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    older = await set_collection(engine, "c", "older")
    newer = 0

    async def apply_newer() -> None:
        nonlocal newer
        newer = await set_collection(engine, "c", "newer")
        assert await outcomes(engine) == {newer: Outcome.APPLIED}

    # At CLAIMED the other batch would stand as well. The plain one looks at guards when it comes to insert.
    batch = await plain_with(engine, sql, apply_newer, "target: before rows are written")
    assert batch is not None
    assert batch.events == []
    assert batch.is_full
    assert await outcomes(engine) == {older: Outcome.STALE}
    assert await drift(sql) == []


@pytest.mark.usefixtures("_there")
@pytest.mark.parametrize("is_active", [True, False])
async def test_a_home_row_that_others_replaced_since_is_not_taken_for_ours(
    is_active: bool,  # noqa: FBT001
    engine: AsyncEngine,
    sql: asyncpg.Connection,
) -> None:
    event_id = await set_collection(engine, "c", "second", is_active=is_active)

    async def replace() -> None:
        await sql.execute("DELETE FROM project_collections WHERE collection_id = 'c'")
        await sql.execute("INSERT INTO project_collections (project_id, collection_id) VALUES ('p1', 'c')")

    batch = await plain_with(engine, sql, replace)
    assert batch is not None
    assert batch.events == []
    assert await outcomes(engine) == {event_id: Outcome.APPLIED}
    assert await drift(sql) == []


@pytest.mark.usefixtures("_there")
async def test_what_others_wrote_into_the_home_row_since_stays(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c", "second")

    async def tag() -> None:
        await sql.execute("""UPDATE project_collections SET tags = '["theirs"]', research_context = '?'""")

    batch = await plain_with(engine, sql, tag)
    assert batch is not None
    assert len(batch.events) == 1
    [row] = await target_rows(sql, "c")
    assert (row["research_context"], row["tags"]) == ("second", '["theirs"]')
    assert await drift(sql) == []


@pytest.mark.usefixtures("_there")
async def test_a_row_that_others_inserted_since_is_left_to_the_ordinary_way(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    event_id = await set_collection(engine, "new", "text")

    async def insert() -> None:
        await sql.execute("INSERT INTO project_collections (project_id, collection_id) VALUES ('p1', 'new')")

    batch = await plain_with(engine, sql, insert)
    assert batch is not None
    assert batch.events == []
    assert await outcomes(engine) == {event_id: Outcome.APPLIED}
    assert await sql.fetchval("SELECT found_row FROM applied_versions WHERE collection_id = 'new'")
    assert await drift(sql) == []


@pytest.mark.usefixtures("_there")
async def test_a_guard_that_another_worker_made_since_undoes_it(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    older = await set_collection(engine, "new", "older")

    async def apply_and_delete_newer() -> None:
        await sql.execute("""
            INSERT INTO applied_versions (collection_id, version, project_id, is_deleted)
            SELECT aggregate_id, id + 1000, 'p1', true FROM outbox_events
        """)

    before = await sql.fetchval("SELECT count(*) FROM project_collections")
    assert await plain_with(engine, sql, apply_and_delete_newer) is None
    assert await sql.fetchval("SELECT count(*) FROM project_collections") == before
    assert await outcomes(engine) == {older: Outcome.STALE}


@pytest.mark.usefixtures("_there")
@pytest.mark.parametrize("held", ["applied_versions", "project_collections"])
async def test_it_waits_for_no_row(held: str, engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await set_collection(engine, "c", "second")
    free = await set_collection(engine, "free", "text")
    async with sql.transaction():
        await sql.execute(f"SELECT FROM {held} FOR UPDATE")
        assert await asyncio.wait_for(settled_by(engine), 60) == [free]
    assert list((await run_once(engine)).settlements) != []
    assert await drift(sql) == []


@pytest.mark.parametrize(
    "dropping",
    [
        "INSERT ON project_collections",
        "UPDATE ON project_collections",
        "DELETE ON project_collections",
        "INSERT ON applied_versions",
        "UPDATE ON applied_versions",
        "DELETE ON outbox_events",
    ],
)
async def test_of_an_event_whose_rows_are_dropped_silently_nothing_is_kept(
    dropping: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    for collection_id in ("updated", "deleted"):
        await set_collection(engine, collection_id, "first")
    await drain(engine)
    kinds = {
        "INSERT": ("new", True),
        "UPDATE": ("updated", True),
        "DELETE": ("deleted", False),
    }
    collection_id, is_active = kinds[dropping.split(maxsplit=1)[0]]
    await set_collection(engine, collection_id, "second", is_active=is_active)
    await sql.execute(DROP_ROWS.format(dropping))
    before = await sql.fetchrow(STATE)
    assert not await settled_by(engine)
    assert await sql.fetchrow(STATE) == before
