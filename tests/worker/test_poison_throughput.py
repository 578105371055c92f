"""A few poison events among many: what they cost the others, counted and not timed."""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from worker.drainer import Drainer
from worker.relay.apply import apply

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

    monkeypatch.setattr("worker.relay.settle.apply", counting)
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
@pytest.mark.parametrize("source", ["api", pytest.param("backfill", marks=pytest.mark.wide)])
async def test_twenty_poison_events_among_ten_thousand_cost_the_others_little_more_than_their_work(
    source: str, place: str, engine: AsyncEngine, sql: asyncpg.Connection, work: Work
) -> None:
    await drain_with_poison(engine, sql, source, EVENTS, PLACES[place])
    assert work.events <= 1.7 * EVENTS
    assert work.calls <= 30 * POISON


async def test_divided_into_single_events_at_once_they_cost_a_call_for_each_event_beside_them(
    engine: AsyncEngine, sql: asyncpg.Connection, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.relay.settle.PARTS", EVENTS)
    await drain_with_poison(engine, sql, "api", EVENTS // POISON, [250])
    assert work.calls > EVENTS // POISON


@pytest.mark.wide
async def test_halved_they_cost_the_others_their_work_four_times_over(
    engine: AsyncEngine, sql: asyncpg.Connection, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.relay.settle.PARTS", 2)
    await drain_with_poison(engine, sql, "api", EVENTS // POISON, [250])
    assert work.events > 2.5 * EVENTS // POISON
