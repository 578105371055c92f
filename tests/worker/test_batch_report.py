"""Telling of a batch with many events: beside everything else, and of each of them."""

import asyncio
from itertools import pairwise

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs
from structlog.typing import EventDict

from worker.drainer import Drainer
from worker.relay.batch import Batch
from worker.relay.claim import ClaimedEvent
from worker.relay.settle import APPLIED
from worker.telemetry.reporter import LINES_AT_ONCE, BatchReporter

APPEND = """
    WITH made AS (
        INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
        SELECT 'many-' || number, 'p1', '', 'owner', true FROM generate_series(1, $1::integer) AS number
        RETURNING collection_id
    )
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.created', 'api', jsonb_build_object(
        'project_id', 'p1', 'research_context', NULL, 'created_at', NULL, 'updated_at', NULL)
    FROM made
"""


def batch_of(size: int, first: int = 1) -> Batch:
    events = [
        ClaimedEvent(
            number,
            f"c{number}",
            "p1",
            "collection.created",
            "api",
            1.0,
            well_formed=True,
            is_borne_out=True,
            appended_at=0.0,
            attempts=0,
            lane=0,
        )
        for number in range(first, first + size)
    ]
    return Batch(events, {event.id: APPLIED for event in events}, 0.01, 0.001, is_full=True)


def told(lines: list[EventDict]) -> list[int]:
    return [line["event_id"] for line in lines if line["event"] == "event_settled"]


async def test_the_lines_of_many_events_let_others_run_in_between() -> None:
    with capture_logs() as lines:
        reporter = BatchReporter()
        await reporter.report(batch_of(10 * LINES_AT_ONCE), "sweep")
        seen = []
        while len(told(lines)) < 10 * LINES_AT_ONCE:
            seen.append(len(told(lines)))
            await asyncio.sleep(0)
    assert seen[0] == LINES_AT_ONCE
    assert max(after - before for before, after in pairwise(seen)) == LINES_AT_ONCE


async def test_batches_are_told_of_one_after_the_other() -> None:
    with capture_logs() as lines:
        reporter = BatchReporter()
        for first in (1, 301, 601):
            await reporter.report(batch_of(300, first), "sweep")
        await reporter.flush()
    assert told(lines) == list(range(1, 901))


async def test_whoever_waits_for_it_may_be_cancelled_and_everything_is_told() -> None:
    with capture_logs() as lines:
        reporter = BatchReporter()
        await reporter.report(batch_of(5 * LINES_AT_ONCE), "sweep")
        waiting = asyncio.create_task(reporter.flush())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await reporter.flush()
    assert len(told(lines)) == 5 * LINES_AT_ONCE


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_a_drain_ends_when_it_has_told_of_every_event_that_it_settled(
    engine: AsyncEngine, sql: asyncpg.Connection, *, is_stopped: bool
) -> None:
    await sql.execute(APPEND, 3_000)
    drainer = Drainer(engine)
    with capture_logs() as lines:
        drainer.wake("sweep")
        if is_stopped:
            while not told(lines):
                await asyncio.sleep(0)
            await drainer.stop()
        else:
            await drainer.drain("sweep")
    settled = 3_000 - await sql.fetchval("SELECT count(*) FROM outbox_events")
    assert len(told(lines)) == settled > 0
