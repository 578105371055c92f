"""Who is to blame: an event dies only of what is its own, and what surrounds it may be mended."""

import contextlib

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from tests.draining import run_once
from tests.drift import drift
from tests.legacy_rows import set_collection, target_rows
from tests.processes import HANG_SECONDS
from tests.worker.events import outcomes
from worker.drainer import Drainer
from worker.relay import blame as blame_module
from worker.relay.apply import UnappliedError
from worker.relay.outcomes import Outcome

# Refuses the rows of some collections in the way that the test names.
REFUSING = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.collection_id LIKE 'bad%' THEN {how}; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON project_collections
        FOR EACH ROW EXECUTE FUNCTION refuse();
"""
ENVIRONMENTAL = (
    *("0A000", "25006", "42501", "42703", "42883", "42P01", "42P10", "53100", "53200", "53400"),
    *("54000", "54001", "55000", "55006", "57014", "57P01", "58030", "XX000", "XX001", "2200H"),
)
DRAWN = "SELECT last_value, is_called FROM project_collections_id_seq"


async def letters(sql: asyncpg.Connection) -> list[tuple[object, ...]]:
    rows = await sql.fetch("SELECT aggregate_id, sqlstate, error FROM outbox_dead_letters ORDER BY id")
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("code", ENVIRONMENTAL)
async def test_what_the_surroundings_did_convicts_nobody_although_others_went_through(
    code: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute(REFUSING.format(how=f"RAISE EXCEPTION USING ERRCODE = '{code}'"))
    bad = await set_collection(engine, "bad")
    good = [await set_collection(engine, f"good{number}") for number in range(3)]
    try:
        assert await outcomes(engine) == {bad: Outcome.POSTPONED} | dict.fromkeys(good, Outcome.APPLIED)
    except asyncpg.PostgresError as error:  # of those that end a whole batch, nothing is changed at all
        assert error.sqlstate == code  # noqa: PT017
    assert await letters(sql) == []
    await sql.execute("DROP TRIGGER refuse ON project_collections")
    await run_once(engine)
    assert (await drift(sql), await letters(sql)) == ([], [])


UNIQUE_KEY = "project_collections_project_id_collection_id_key"
GONE_FOR_A_WHILE = {
    "the target": (
        "ALTER TABLE project_collections RENAME TO away",
        "ALTER TABLE away RENAME TO project_collections",
    ),
    "a column": (
        "ALTER TABLE project_collections RENAME research_context TO away",
        "ALTER TABLE project_collections RENAME away TO research_context",
    ),
    "the unique key": (
        f"ALTER TABLE project_collections DROP CONSTRAINT {UNIQUE_KEY}",
        f"ALTER TABLE project_collections ADD CONSTRAINT {UNIQUE_KEY} UNIQUE (project_id, collection_id)",
    ),
    "a default": (
        "ALTER TABLE project_collections ADD COLUMN extra text NOT NULL",
        "ALTER TABLE project_collections DROP COLUMN extra",
    ),
    "ids": (
        "SELECT setval('project_collections_id_seq', 2147483647)",
        "SELECT setval('project_collections_id_seq', 1, false)",
    ),
}


@pytest.mark.parametrize(("away", "back"), GONE_FOR_A_WHILE.values(), ids=GONE_FOR_A_WHILE)
@pytest.mark.parametrize(
    "tried_before", [0, *(pytest.param(n, marks=pytest.mark.wide) for n in (1, 60)), 150]
)
async def test_what_comes_back_while_a_batch_is_divided_costs_no_event_its_life(
    away: str,
    back: str,
    *,
    tried_before: int,
    engine: AsyncEngine,
    sql: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(200):
        await set_collection(engine, f"c{number}")
    real, tried = blame_module.blame, 0

    async def blame(connection: asyncpg.Connection, error: Exception) -> blame_module.Blame:
        """Let it come back, as another session's DDL does, once so many events were tried alone."""
        nonlocal tried
        if tried == tried_before:
            await connection.execute(back)
        tried += 1
        return await real(connection, error)

    await sql.execute(away)
    monkeypatch.setattr("worker.relay.settle.blame", blame)
    for _ in range(2):
        await run_once(engine)
    assert (await drift(sql), await letters(sql)) == ([], [])


async def test_updates_draw_no_id_and_insertions_one_each(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    async def drawn() -> int:
        last_value, is_called = await sql.fetchrow(DRAWN)
        return int(last_value) - (not is_called)

    for number in range(20):
        await set_collection(engine, f"c{number}")
    before = await drawn()
    await run_once(engine)
    assert await drawn() - before == 20
    for turn in range(5):
        for number in range(20):
            await set_collection(engine, f"c{number}", str(turn))
        await run_once(engine)
    assert await drawn() - before == 20
    assert await drift(sql) == []


async def test_where_ids_are_exhausted_updates_go_on_and_creations_wait(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    known = await set_collection(engine, "known")
    await run_once(engine)
    await sql.execute("SELECT setval('project_collections_id_seq', 2147483647)")
    new = [await set_collection(engine, f"new{number}") for number in range(3)]
    known = await set_collection(engine, "known", "changed")
    assert await outcomes(engine) == {known: Outcome.APPLIED} | dict.fromkeys(new, Outcome.POSTPONED)
    assert (await letters(sql), len(await drift(sql))) == ([], 3)


async def test_ids_that_a_restored_sequence_draws_again_are_nobodys_fault(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    for number in range(5):
        await set_collection(engine, f"old{number}")
    await run_once(engine)
    await sql.execute("SELECT setval('project_collections_id_seq', 1, false)")
    for number in range(20):
        await set_collection(engine, f"new{number}")
    drainer = Drainer(engine)
    with capture_logs() as lines:
        while await sql.fetchval("SELECT count(*) FROM outbox_events"):
            await drainer.drain("sweep")
    assert (await drift(sql), await letters(sql)) == ([], [])
    said = {line.get("error") for line in lines if line["event"] == "events_postponed"}
    assert all("project_collections_pkey" in str(error) for error in said)


async def test_a_unique_key_of_what_an_event_brings_is_the_events_matter(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute("CREATE UNIQUE INDEX one_of_each ON project_collections (lower(research_context))")
    await set_collection(engine, "first", "the same")
    second = await set_collection(engine, "second", "The same")
    await run_once(engine)
    assert await letters(sql) == [
        ("second", "23505", "unique violation, table project_collections, constraint one_of_each")
    ]
    assert second


async def test_what_postgresql_refuses_at_commit_is_found_in_the_pass(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute("""
        CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.research_context = 'bad' THEN
                RAISE EXCEPTION USING ERRCODE = '23514', CONSTRAINT = 'no_bad_ones';
            END IF;
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE ON project_collections
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late();
    """)
    for number in range(21):
        await set_collection(engine, f"c{number}", "bad" if number == 7 else "good")
    with contextlib.suppress(asyncpg.PostgresError):
        await run_once(engine)
    assert await sql.fetchval("SELECT count(*) FROM project_collections") == 20
    (letter,) = await letters(sql)
    assert letter[:2] == ("c7", "23514")
    assert "constraint no_bad_ones" in str(letter[2])


async def test_a_row_that_a_child_holds_dies_by_the_childs_name_and_one_without_a_parent_is_obsolete(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute("CREATE TABLE notes (pc integer NOT NULL REFERENCES project_collections (id))")
    for name in ("held", "free"):
        await set_collection(engine, name)
    await run_once(engine)
    await sql.execute("INSERT INTO notes SELECT id FROM project_collections WHERE collection_id = 'held'")
    held = await set_collection(engine, "held", is_active=False)
    free = await set_collection(engine, "free", is_active=False)
    gone = await set_collection(engine, "gone")
    await sql.execute("DELETE FROM collections WHERE collection_id = 'gone'")
    assert await outcomes(engine) == {held: Outcome.DEAD, free: Outcome.APPLIED, gone: Outcome.OBSOLETE}
    assert await letters(sql) == [
        ("held", "23503", "foreign key violation, table notes, constraint notes_pc_fkey")
    ]


async def test_a_row_that_stays_although_it_was_deleted_keeps_the_batch_from_committing(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    for name in ("kept", "free"):
        await set_collection(engine, name)
    await run_once(engine)
    await sql.execute("""
        CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF OLD.collection_id = 'kept' THEN RETURN NULL; END IF;
            RETURN OLD;
        END $$;
        CREATE TRIGGER keep BEFORE DELETE ON project_collections FOR EACH ROW EXECUTE FUNCTION keep();
    """)
    kept = await set_collection(engine, "kept", is_active=False)
    with pytest.raises(UnappliedError):
        await run_once(engine)
    assert len(await target_rows(sql, "kept")) == 1
    free = await set_collection(engine, "free", is_active=False)
    assert await outcomes(engine) == {kept: Outcome.DEAD, free: Outcome.APPLIED}


async def test_events_that_wait_hold_up_none_behind_them(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a batch of them, and all of its first batch."""
    monkeypatch.setattr("worker.drainer.LIVE_BATCH", 10)
    monkeypatch.setattr("worker.drainer.LAST_RETRY_SECONDS", 0)
    monkeypatch.setattr("worker.drainer.BEHIND_SECONDS", HANG_SECONDS)
    await sql.execute(REFUSING.format(how="RAISE EXCEPTION USING ERRCODE = '42501'"))
    for number in range(25):
        await set_collection(engine, f"bad{number}")
    for number in range(25):
        await set_collection(engine, f"good{number}")
    drainer = Drainer(engine)
    for _ in range(4):  # a batch that failed whole ends a drain
        await drainer.drain("sweep")
    assert await sql.fetchval("SELECT count(*) FROM project_collections") == 25
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 25
    await sql.execute("DROP TRIGGER refuse ON project_collections")
    for _ in range(4):
        await drainer.drain("sweep")
    assert (await drift(sql), await letters(sql)) == ([], [])
