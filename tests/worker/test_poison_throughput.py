"""A few poison events among many: what they cost the others, counted and not timed."""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from worker import settle
from worker.apply import apply
from worker.claim import ClaimedEvent
from worker.drainer import Drainer
from worker.outcomes import Verdict
from worker.suspects import suspects

EVENTS = 10_000
POISON = 20
MAKE = """
    WITH made AS (
        INSERT INTO collections
            (collection_id, project_id, collection_name, description, created_by, is_active)
        SELECT 'many-' || number, 'p1', '', 'told', 'owner', true
        FROM generate_series(1, $1::integer) AS number
        RETURNING collection_id, project_id, description
    )
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.created', $2, jsonb_build_object(
        'project_id', project_id, 'research_context', description, 'created_at', NULL, 'updated_at', NULL)
    FROM made
"""
POISONED = """
    UPDATE outbox_events SET payload = payload || '{"created_at": "not a time"}' WHERE id = ANY($1)
"""
TIMES = {"api": 4, "backfill": 5}  # a backfill has larger batches to halve
PLACES = {
    "spread evenly": [number * EVENTS // POISON + 250 for number in range(POISON)],
    "side by side": list(range(5_000, 5_000 + POISON)),
}


@dataclass
class Work:
    """How often the target was written, and how many events were handed over for it in all."""

    calls: int = 0
    events: int = 0


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    counted = Work()

    async def counting(connection: asyncpg.Connection, ids: Sequence[int]) -> set[int]:
        counted.calls += 1
        counted.events += len(ids)
        return await apply(connection, ids)

    monkeypatch.setattr("worker.settle.apply", counting)
    return counted


async def drain_with_poison(
    engine: AsyncEngine, sql: asyncpg.Connection, source: str, events: int, positions: Sequence[int]
) -> None:
    """Drain so many events, poison at these positions; check what became of each."""
    await sql.execute(MAKE, events, source)
    ids = [row["id"] for row in await sql.fetch("SELECT id FROM outbox_events ORDER BY id")]
    poison = [ids[position] for position in positions]
    await sql.execute(POISONED, poison)
    with capture_logs():
        await Drainer(engine).drain("sweep")
    dead = await sql.fetch(
        "SELECT id, sqlstate, error <> '' AS has_reason FROM outbox_dead_letters ORDER BY id"
    )
    assert [tuple(row) for row in dead] == [(event_id, "22007", True) for event_id in poison]
    assert await sql.fetchval("SELECT count(*) FROM project_collections") == events - len(poison)
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("source", ["api", "backfill"])
async def test_twenty_poison_events_among_ten_thousand_cost_the_others_a_few_times_their_work(
    source: str, place: str, engine: AsyncEngine, sql: asyncpg.Connection, work: Work
) -> None:
    await drain_with_poison(engine, sql, source, EVENTS, PLACES[place])
    assert work.events <= TIMES[source] * EVENTS
    assert work.calls <= 20 * POISON


async def test_without_halving_they_cost_a_call_for_each_event_beside_them(
    engine: AsyncEngine, sql: asyncpg.Connection, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    halving = settle._apply_isolating  # noqa: SLF001 - a twin takes its place

    async def one_by_one(
        connection: asyncpg.Connection, events: Sequence[ClaimedEvent]
    ) -> dict[int, Verdict]:
        verdicts: dict[int, Verdict] = {}
        for event in events:
            verdicts |= await halving(connection, [event])
        return verdicts

    monkeypatch.setattr("worker.settle._apply_isolating", one_by_one)
    await drain_with_poison(engine, sql, "api", EVENTS // POISON, [250])
    assert work.calls > EVENTS // POISON


async def test_suspects_are_the_events_whose_time_project_or_collection_does_not_exist(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    del engine
    await sql.execute(MAKE, 6, "api")
    ids = [row["id"] for row in await sql.fetch("SELECT id FROM outbox_events ORDER BY id")]
    await sql.execute(POISONED, ids[:1])
    await sql.execute(
        'UPDATE outbox_events SET payload = payload || \'{"updated_at": "infinitely late"}\' WHERE id = $1',
        ids[1],
    )
    await sql.execute(
        'UPDATE outbox_events SET payload = payload || \'{"project_id": "gone"}\' WHERE id = $1', ids[2]
    )
    await sql.execute("DELETE FROM collections WHERE collection_id = 'many-4'")
    assert await suspects(sql, ids) == set(ids[:4])
    assert await suspects(sql, ids[3:]) == set(ids[3:4])
