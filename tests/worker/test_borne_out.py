"""Events that the legacy table does not bear out: believed by nobody, whoever appended them."""

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.draining import drain
from tests.drift import drift
from tests.legacy_rows import set_collection, target_rows
from tests.worker.events import append_raw, outcomes
from worker.relay.outcomes import Outcome

LINK = "INSERT INTO project_collections (project_id, collection_id, tags) VALUES ('p2', 'c', '[\"theirs\"]')"
BELIED = {
    "another home": ("collection.updated", {"project_id": "p2"}),
    "a deletion of what is active": ("collection.deleted", {}),
    "a deletion elsewhere": ("collection.deleted", {"project_id": "p2"}),
    "a home that does not exist": ("collection.created", {"project_id": "nowhere"}),
}


@pytest.fixture
async def shown(engine: AsyncEngine, sql: asyncpg.Connection) -> list[dict[str, object]]:
    """A collection that is shown in its home, where somebody tagged it, and linked to another project."""
    await set_collection(engine, "c", "true")
    await drain(engine)
    await sql.execute(LINK)
    await sql.execute("""UPDATE project_collections SET tags = '["kept"]' WHERE project_id = 'p1'""")
    return await target_rows(sql, "c")


@pytest.mark.parametrize(("event_type", "payload"), BELIED.values(), ids=BELIED)
async def test_an_event_that_the_legacy_table_belies_changes_nothing(
    event_type: str,
    payload: dict[str, str],
    shown: list[dict[str, object]],
    engine: AsyncEngine,
    sql: asyncpg.Connection,
) -> None:
    guard = await sql.fetchrow("SELECT * FROM applied_versions")
    belied = await append_raw(sql, "c", event_type, **payload)
    assert await outcomes(engine) == {belied: Outcome.OBSOLETE}
    assert await target_rows(sql, "c") == shown
    assert await sql.fetchrow("SELECT * FROM applied_versions") == guard


async def test_the_newest_event_that_is_borne_out_is_applied_instead(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    first = await set_collection(engine, "c", "true")
    true = await set_collection(engine, "c", "still true")
    belied = await append_raw(sql, "c", "collection.deleted")
    assert await outcomes(engine) == {
        first: Outcome.CONFLATED,
        true: Outcome.APPLIED,
        belied: Outcome.OBSOLETE,
    }
    assert await drift(sql) == []


async def test_a_deletion_is_believed_where_the_row_is_gone_and_a_state_is_not(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    deleted = await append_raw(sql, "gone", "collection.deleted")
    updated = await append_raw(sql, "gone too")
    assert await outcomes(engine) == {deleted: Outcome.APPLIED, updated: Outcome.OBSOLETE}


async def test_what_was_moved_or_brought_back_by_hand_while_its_event_waited_keeps_its_tags(
    shown: list[dict[str, object]], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c", is_active=False)
    await sql.execute("UPDATE collections SET is_active = true")
    assert set((await outcomes(engine)).values()) == {Outcome.OBSOLETE}
    assert await target_rows(sql, "c") == shown
