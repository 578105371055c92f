"""Rollbacks in a storm of writes and of batches that they cannot see coming, frozen between all steps."""

import asyncio
import random

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.draining import drain, run_once
from tests.drift import drained, drift
from tests.legacy_rows import set_collection
from tests.processes import HANG_SECONDS
from tests.race import freezing
from tests.rollback.situations import ignore, rolled_back, switched_on_again, waits
from worker.rollback import walk
from worker.rollback.tally import Rollback
from worker.rollback.walk import Walk

KEYS = [f"k{number}" for number in range(12)]
ROUNDS = 6
REMOVABLE = "SELECT count(*) > 2 FROM applied_versions WHERE NOT (is_deleted OR found_row)"
POINTS = [point for point in freezing.POINTS if point.startswith(("guard", "target", "acknowledge"))]
# A guard of a row that is not there, or a row of ours that has lost its guard: it would count as found.
TORN = """
    SELECT coalesce(guard.collection_id, target.collection_id) AS collection_id
    FROM (SELECT * FROM applied_versions WHERE NOT is_deleted) AS guard
    FULL JOIN project_collections AS target USING (collection_id, project_id)
    WHERE guard.collection_id IS NULL OR target.collection_id IS NULL OR guard.found_row
"""


async def write(engine: AsyncEngine, seed: int, over: asyncio.Event) -> None:
    dice = random.Random(seed)  # noqa: S311 - a storm that can be repeated
    while not over.is_set():
        await set_collection(engine, dice.choice(KEYS), str(seed), is_active=dice.random() < 0.7)
        await asyncio.sleep(0.002)


async def relay(engine: AsyncEngine, over: asyncio.Event) -> None:
    """Apply in sessions that do not look like a worker's: no rollback refuses to begin."""
    while not over.is_set():
        await run_once(engine, 5)


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.wide) for n in (1, 2))])
async def test_no_batch_comes_between_a_row_and_its_guard_and_nothing_is_lost_for_good(
    engine: AsyncEngine,
    sql: asyncpg.Connection,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    monkeypatch.setattr(walk, "CHUNK_ROWS", 3)
    await freezing.install(sql)
    other = await asyncpg.connect(database_url)
    over = asyncio.Event()
    weather = asyncio.create_task(freezing.weather(other, POINTS, seed))
    others = [relay(engine, over) for _ in range(2)]
    others += [write(engine, 10 * seed + number, over) for number in range(3)]
    storm = asyncio.gather(*others)
    removed = []
    for _ in range(ROUNDS):
        async with asyncio.timeout(HANG_SECONDS):
            while not await sql.fetchval(REMOVABLE):
                await asyncio.sleep(0.01)
        removed.append((await rolled_back(engine)).removed)
    over.set()
    await storm
    weather.cancel()
    await asyncio.wait([weather])
    await other.close()
    assert sum(count > 0 for count in removed) > ROUNDS / 3

    await drain(engine)
    await drained(sql)
    assert await sql.fetch(TORN) == []
    assert await sql.fetchval("SELECT count(*) FROM applied_versions") > 0
    await switched_on_again(engine, sql)
    assert await drift(sql) == []
    assert await sql.fetch(TORN) == []


async def test_the_guard_of_a_row_that_is_just_coming_back_is_not_forgotten(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await freezing.install(sql)
    for is_active in (True, False):
        await set_collection(engine, "one", is_active=is_active)
        await drain(engine)
    await set_collection(engine, "one", is_active=True)
    walk = Walk(engine, asyncio.Event(), ignore, Rollback(dry_run=False))
    async with freezing.frozen(sql, "target: before rows are written"):
        batch = asyncio.create_task(run_once(engine))
        await freezing.arrived(sql, "target: before rows are written")
        forgetting = asyncio.create_task(walk.forget_guards())
        async with asyncio.timeout(HANG_SECONDS):
            while not (forgetting.done() or await waits(sql, "(LOCK TABLE|DELETE FROM) applied_versions")):
                await asyncio.sleep(0.01)
        assert not forgetting.done()
    await asyncio.gather(batch, forgetting)
    assert [row["collection_id"] for row in await sql.fetch(TORN)] == []
