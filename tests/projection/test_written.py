"""What a batch writes of an event: the projected columns, whatever else the event or the target holds."""

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.legacy_rows import seed, set_collection, target_rows
from tests.worker.events import append_raw, outcomes
from worker.drainer import Drainer
from worker.relay.outcomes import Outcome

DEMAND = """
    CREATE DOMAIN shelf AS text NOT NULL CHECK (value <> '');
    ALTER TABLE project_collections ADD COLUMN shelf shelf DEFAULT 'north'
"""


async def shown(sql: asyncpg.Connection) -> list[str]:
    return [row["research_context"] for row in await target_rows(sql, "c1")]


async def test_a_field_that_is_named_like_another_column_of_the_target_is_passed_over(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    await set_collection(engine, "c1")
    await sql.execute("DELETE FROM outbox_events")
    for text in ("inserted", "updated"):
        event_id = await append_raw(sql, "c1", research_context=text, id="no number")
        assert await outcomes(engine) == {event_id: Outcome.APPLIED}
        assert await shown(sql) == [text]


async def test_what_the_target_demands_of_another_column_is_its_default_s_to_fulfil(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    await sql.execute(DEMAND)
    for text in ("inserted", "updated"):
        await set_collection(engine, "c1", text)
        await Drainer(engine).drain("sweep")
        assert await shown(sql) == [text]
    assert await sql.fetchval("SELECT shelf FROM project_collections") == "north"


async def test_a_time_means_the_same_to_a_target_that_stores_no_zone(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    await sql.execute("ALTER TABLE project_collections ALTER COLUMN created_at TYPE timestamp")
    await set_collection(engine, "c1")
    event_id = await append_raw(sql, "c1", created_at="2024-01-02T03:04:05+09:00")
    assert (await outcomes(engine))[event_id] is Outcome.APPLIED
    assert str(await sql.fetchval("SELECT created_at FROM project_collections")) == "2024-01-01 18:04:05"
