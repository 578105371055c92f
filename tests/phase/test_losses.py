"""What going back would lose is counted by kind: each loss under its kind, nothing else, on one snapshot."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.phase import losses
from shared.phase.losses import count_and_keep
from shared.verdict.facts import Losses
from tests.draining import drain
from tests.legacy_rows import seed, set_collection
from tests.processes import HANG_SECONDS
from tests.rollback.situations import MAKE_MANY
from tests.rollback.test_at_any_moment import until_it_waits
from tests.twins.replacing import replaced
from tests.worker.events import append_raw

LINK = "INSERT INTO project_collections (project_id, collection_id, research_context, tags)"
SET = "UPDATE project_collections SET"
WITHOUT_HOME = "DELETE FROM project_collections WHERE project_id = 'p1'"
MOVED = "UPDATE collections SET project_id = 'p2'"
WAITS = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    VALUES ('c1', 'collection.updated', 'backfill', '{}')
"""
LETTER = """
    INSERT INTO outbox_dead_letters
        (id, aggregate_id, event_type, source, payload, created_at, died_at, error, attempts, state,
        closed_at)
    VALUES (1, 'c1', 'collection.updated', 'api', '{}', now(), now(), '', 1, '{state}', {closed_at})
"""
OPEN = LETTER.replace("{state}", "dead").replace("{closed_at}", "NULL")
CLOSED = LETTER.replace("{state}", "discarded").replace("{closed_at}", "now()")

# What is done to a collection c1 at home in p1, described as 'text', that was applied; what is lost by it.
CASES: dict[str, tuple[list[str], dict[str, int]]] = {
    "nothing": ([], {}),
    "a link": ([f"{LINK} VALUES ('p2', 'c1', NULL, '[]')"], {"further_links": 1}),
    "a link with the description": ([f"{LINK} VALUES ('p2', 'c1', 'text', '[]')"], {"further_links": 1}),
    "a link with a context of its own": (
        [f"{LINK} VALUES ('p2', 'c1', 'theirs', '[]')"],
        {"further_links": 1, "contexts": 1},
    ),
    "a link with tags": ([f"{LINK} VALUES ('p2', 'c1', NULL, '[1]')"], {"further_links": 1, "tags": 1}),
    "a link, and an event waits": (
        [f"{LINK} VALUES ('p2', 'c1', 'theirs', '[]')", WAITS],
        {"further_links": 1, "contexts": 1},
    ),
    "tags": ([f"{SET} tags = '[\"a\"]'"], {"tags": 1}),
    "tags, and an event waits": ([f"{SET} tags = '[1]'", WAITS], {"tags": 1}),
    "empty tags": ([f"{SET} tags = ' [ ] ', linked_project_question_ids = 'null'"], {}),
    "no tags": ([f"{SET} tags = NULL, linked_project_hypothesis_ids = '{{}}'"], {}),
    "questions": ([f"{SET} linked_project_question_ids = '{{\"a\": 1}}'"], {"mappings": 1}),
    "hypotheses": ([f"{SET} linked_project_hypothesis_ids = '[1]'"], {"mappings": 1}),
    "both": (
        [f"{SET} linked_project_question_ids = '[1]', linked_project_hypothesis_ids = '[1]'"],
        {"mappings": 1},
    ),
    "another context": ([f"{SET} research_context = 'Text'"], {"contexts": 1}),
    "no context": ([f"{SET} research_context = NULL"], {"contexts": 1}),
    "another context, and an event waits": ([f"{SET} research_context = 'x'", WAITS], {}),
    "another context, and a letter is open": ([f"{SET} research_context = 'x'", OPEN], {}),
    "another context, and a letter is closed": ([f"{SET} research_context = 'x'", CLOSED], {"contexts": 1}),
    "without a home": (
        [WITHOUT_HOME, f"{LINK} VALUES ('p2', 'c1', NULL, '[]'), ('p3', 'c1', NULL, '[]')"],
        {"further_links": 2, "without_home": 1},
    ),
    "without a home, and an event waits": (
        [WITHOUT_HOME, f"{LINK} VALUES ('p2', 'c1', NULL, '[]')", WAITS],
        {"further_links": 1},
    ),
    "nowhere": ([WITHOUT_HOME], {}),
    "moved, and its event waits": ([MOVED, WAITS, f"{SET} tags = '[1]'"], {}),
    "moved past the outbox": ([MOVED], {"further_links": 1, "without_home": 1}),
    "deleted": (
        [
            "UPDATE collections SET is_active = false",
            f"{SET} tags = '[1]', research_context = 'x', linked_project_question_ids = '[1]'",
            f"{LINK} VALUES ('p2', 'c1', 'theirs', '[]')",
        ],
        {},
    ),
    "neither active nor not": (["UPDATE collections SET is_active = NULL", f"{SET} tags = '[1]'"], {}),
}


def by_kind(lost: Losses) -> dict[str, int]:
    return {kind: number for kind, number in lost.by_kind.items() if number}


@pytest.fixture(autouse=True)
async def _applied(sql: asyncpg.Connection, engine: AsyncEngine) -> None:
    await seed(sql)
    await set_collection(engine, "c1", "text")
    await drain(engine)


async def counted(engine: AsyncEngine) -> dict[str, int]:
    async with engine.begin() as connection:
        return by_kind(await count_and_keep(connection))


@pytest.mark.parametrize("case", CASES)
async def test_each_loss_is_counted_under_its_kind(
    engine: AsyncEngine, sql: asyncpg.Connection, case: str
) -> None:
    statements, expected = CASES[case]
    for statement in statements:
        await sql.execute(statement)
    assert await counted(engine) == expected


async def test_what_a_later_version_says_is_not_settled_either(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute(f"{SET} research_context = 'x'")
    await append_raw(sql, "c1")
    await sql.execute("UPDATE outbox_events SET schema_version = 9")
    assert await counted(engine) == {}


async def test_what_was_counted_last_is_kept(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await sql.execute(f"{SET} tags = '[1]'")
    async with engine.begin() as connection:
        first = await count_and_keep(connection)
    await sql.execute(f"{SET} tags = '[]', research_context = 'x'")
    async with engine.begin() as connection:
        second = await count_and_keep(connection)
    assert (by_kind(first), by_kind(second)) == ({"tags": 1}, {"contexts": 1})
    [row] = await sql.fetch("SELECT *, extract(epoch FROM counted_at)::float8 AS at FROM going_back_losses")
    assert (row["tags"], row["contexts"], row["at"]) == (0, 1, second.counted_at)
    assert row["took_seconds"] > 0


async def test_one_that_began_earlier_and_ends_later_is_not_kept(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    async with engine.begin() as connection:
        kept = await count_and_keep(connection)
        await connection.execute(text("UPDATE going_back_losses SET tags = 7, counted_at = 'infinity'"))
        assert await count_and_keep(connection) != kept
    assert await sql.fetchval("SELECT tags FROM going_back_losses") == 7


async def test_all_kinds_are_of_one_snapshot(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What becomes of a tag in one transaction, while a count is under way, is counted once."""
    patient = text(replaced(losses.SETTINGS.text, "'250ms'", f"'{HANG_SECONDS}s'"))
    monkeypatch.setattr(losses, "SETTINGS", patient)
    await sql.execute(f"{SET} tags = '[1]'")
    holder = await asyncpg.connect(database_url)
    await holder.execute("BEGIN; LOCK TABLE applied_versions IN ACCESS EXCLUSIVE MODE")
    counting = asyncio.create_task(counted(engine))
    await until_it_waits(sql, "WITH unsettled")
    await sql.execute(f"{SET} tags = '[]', linked_project_question_ids = '[1]'")
    await holder.close()
    lost = await counting
    assert lost.get("tags", 0) + lost.get("mappings", 0) == 1


@pytest.mark.parametrize("bytes_per_slice", [1, 100_000, 10**9])
async def test_in_slices_each_collection_is_counted_once(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, bytes_per_slice: int
) -> None:
    monkeypatch.setattr(losses, "BYTES_PER_SLICE", bytes_per_slice)
    await sql.execute(MAKE_MANY, 2_000)
    await sql.execute(f"{SET} tags = '[1]' WHERE id % 2 = 0")
    await sql.execute(f"{SET} research_context = 'x' WHERE id % 5 = 0")
    await sql.execute("""
        INSERT INTO project_collections (project_id, collection_id)
        SELECT 'p2', collection_id FROM collections WHERE collection_id BETWEEN 'c001901' AND 'c002000'
    """)
    await sql.execute(f"{WITHOUT_HOME} AND collection_id BETWEEN 'c001991' AND 'c002000'")
    expected = await sql.fetchrow("""
        SELECT count(*) FILTER (WHERE project_id = 'p2') AS further_links,
            count(*) FILTER (WHERE tags::text = '[1]') AS tags,
            count(*) FILTER (WHERE research_context = 'x') AS contexts, 10 AS without_home
        FROM project_collections
    """)
    assert await counted(engine) == dict(expected)


async def test_it_waits_for_no_session_that_has_locked_a_table(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    async with sql.transaction():
        await sql.execute("LOCK TABLE project_collections IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await asyncio.wait_for(counted(engine), HANG_SECONDS)
