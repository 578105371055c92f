import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.capture.conftest import Capture
from tests.capture.writers import WRITERS, insert
from tests.draining import drain
from tests.drift import drift
from tests.engines import HAS_MERGE

EVENTS = """
    SELECT aggregate_id, event_type, source, lane, schema_version FROM outbox_events ORDER BY aggregate_id, id
"""
COUNTED = "SELECT operation FROM captured_writes ORDER BY operation"
ROWS = "SELECT * FROM collections ORDER BY collection_id"
EACH_WRITER = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=HAS_MERGE if name == "MERGE" else ()) for name in WRITERS]
)


@pytest.fixture(autouse=True)
async def _there(sql: asyncpg.Connection, _seeded: None) -> None:
    for key in ("c1", "c2"):
        await sql.execute(insert(key))


@EACH_WRITER
async def test_counted_writes_are_counted_and_nothing_else_happens(
    name: str, sql: asyncpg.Connection, capture: Capture
) -> None:
    writer = WRITERS[name]
    await sql.execute(writer.before)
    await capture("count")
    await writer.write(sql)
    counted = writer.operations if writer.counted is None else writer.counted
    assert [row["operation"] for row in await sql.fetch(COUNTED)] == counted
    assert await sql.fetch(EVENTS) == []


@EACH_WRITER
async def test_appended_writes_get_their_events_and_the_target_agrees(
    name: str, sql: asyncpg.Connection, capture: Capture, engine: AsyncEngine
) -> None:
    writer = WRITERS[name]
    await sql.execute(writer.before)
    await capture("append")
    await writer.write(sql)
    events = [tuple(row) for row in await sql.fetch(EVENTS)]
    assert events == [(*event, "capture", 0, 1) for event in writer.events]
    assert [row["operation"] for row in await sql.fetch(COUNTED)] == list(writer.operations)
    await drain(engine)
    untouched = {"c1", "c2"} - {key for key, _ in writer.events}  # from before the capture
    assert set(await drift(sql)) <= untouched | ({"c1", "c2"} if name == "replica role" else set())


@EACH_WRITER
async def test_refused_writes_change_nothing_and_say_what_to_do(
    name: str, sql: asyncpg.Connection, capture: Capture
) -> None:
    writer = WRITERS[name]
    await sql.execute(writer.before)
    await capture("refuse")
    before = await sql.fetch(ROWS)
    if not writer.is_refused:
        await writer.write(sql)
        return
    with pytest.raises(asyncpg.RestrictViolationError, match="past the outbox") as refused:
        await writer.write(sql)
    assert refused.value.hint
    assert await sql.fetch(ROWS) == before
    assert await sql.fetch(EVENTS) == []
