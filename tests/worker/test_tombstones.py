"""Tombstones go in time, and none that an event may need yet."""

import asyncio

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared import dead_letters
from tests.dead_letters.test_replay import dead
from tests.draining import drain
from tests.drift import drift
from tests.legacy_rows import set_collection, target_rows
from tests.race import freezing
from tests.worker.events import append_raw
from worker.tombstones import TombstoneUpkeep

DAYS = 30
GUARDS = "SELECT collection_id FROM applied_versions ORDER BY collection_id"
AGE = "UPDATE applied_versions SET appended_at = clock_timestamp() - make_interval(days => $1)"


async def buried(engine: AsyncEngine, sql: asyncpg.Connection, *names: str, days: int = DAYS + 1) -> None:
    """Create collections and delete them, so many days ago."""
    for name in names:
        await set_collection(engine, name, "alive")
        await set_collection(engine, name, is_active=False)
    await drain(engine)
    await sql.execute(AGE, days)


async def pruned(engine: AsyncEngine) -> int:
    return await TombstoneUpkeep(engine, DAYS).prune_slice()


async def guards(sql: asyncpg.Connection) -> list[str]:
    return [row["collection_id"] for row in await sql.fetch(GUARDS)]


async def test_old_tombstones_go_and_guards_of_what_lives_stay(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "alive", "alive")
    await buried(engine, sql, "young", "unknown", "old")
    await sql.execute(f"{AGE} WHERE collection_id = 'young'", DAYS - 1)
    await sql.execute("UPDATE applied_versions SET appended_at = NULL WHERE collection_id = 'unknown'")
    assert await pruned(engine) == 1
    assert await guards(sql) == ["alive", "unknown", "young"]
    await set_collection(engine, "old", "back")
    await drain(engine)
    assert [row["research_context"] for row in await target_rows(sql, "old")] == ["back"]
    assert await drift(sql) == []


async def test_slice_after_slice_it_comes_to_the_end_and_begins_anew(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.tombstones.ROWS", 2)
    await buried(engine, sql, "a", "b", "c", "d", "e")
    upkeep = TombstoneUpkeep(engine, DAYS)
    assert [await upkeep.prune_slice() for _ in range(4)] == [2, 2, 1, 0]
    await buried(engine, sql, "a")
    assert await upkeep.prune_slice() == 1


async def test_it_takes_a_slice_a_minute_and_says_how_many_went(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.tombstones.SECONDS_BETWEEN_SLICES", float("inf"))
    upkeep = TombstoneUpkeep(engine, DAYS)
    await buried(engine, sql, "a", "b")
    with capture_logs() as lines:
        await upkeep.tend()
        await buried(engine, sql, "c")
        await upkeep.tend()
    assert [line["tombstones"] for line in lines if line["event"] == "tombstones_pruned"] == [2]
    assert await guards(sql) == ["c"]


async def test_what_waits_or_died_keeps_its_tombstone(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await buried(engine, sql, "waits", "died")
    letter = await dead(engine, sql, "died")
    await append_raw(sql, "waits")
    assert await pruned(engine) == 0
    await drain(engine)
    async with engine.begin() as connection:
        await dead_letters.discard(connection, [letter])
    await buried(engine, sql, "waits")
    assert await pruned(engine) == 2


async def test_a_tombstone_stays_while_an_older_event_may_still_be_committed(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    await set_collection(engine, "c1", "alive")
    slow = await asyncpg.connect(database_url)
    async with slow.transaction():
        await append_raw(slow, "c1")
        await buried(engine, sql, "c1")
        assert await pruned(engine) == 0
    assert await pruned(engine) == 0  # it waits by now
    await sql.execute("UPDATE outbox_events SET created_at = created_at - interval '1 year'")
    await drain(engine)
    assert await target_rows(sql, "c1") == []
    assert await drift(sql) == []
    assert await pruned(engine) == 1
    await slow.close()


@pytest.mark.parametrize("point", ["guard: after the guard", "commit: of a batch"])
async def test_what_a_batch_brings_back_at_this_moment_keeps_its_guard(
    engine: AsyncEngine, sql: asyncpg.Connection, point: str
) -> None:
    await buried(engine, sql, "c1")
    await freezing.install(sql)
    newer = await set_collection(engine, "c1", "back")
    async with freezing.frozen(sql, point):
        draining = asyncio.create_task(drain(engine))
        await freezing.arrived(sql, point)
        assert await pruned(engine) == 0
    await draining
    assert await sql.fetchval("SELECT version FROM applied_versions") == newer
    assert await pruned(engine) == 0
    assert await drift(sql) == []


async def test_a_batch_that_meets_a_tombstone_that_is_just_removed_applies_what_is_newer(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await buried(engine, sql, "c1")
    async with sql.transaction():
        await sql.execute("DELETE FROM applied_versions")
        await set_collection(engine, "c1", "back")
        draining = asyncio.create_task(drain(engine))
        await freezing.until_blocked(sql)
    await draining
    assert [row["research_context"] for row in await target_rows(sql, "c1")] == ["back"]
    assert await drift(sql) == []
