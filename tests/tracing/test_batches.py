"""What a worker tells of its batches: links, first and later tries, failures, and nothing when it is off."""

from collections.abc import Sequence

import asyncpg
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.events import EventType, Source
from shared.outbox import append_states
from tests.draining import drain, run_once
from tests.legacy_rows import seed, set_collection
from tests.tracing.spans import (
    BATCH,
    EVENT,
    Spans,
    attributes,
    context,
    give,
    links,
    made_up,
    named_by,
    place,
)
from tests.worker.events import append_raw
from worker.drainer import Drainer
from worker.relay.claim import ClaimedEvent
from worker.telemetry.spans import MOST_LINKS, MOST_REMEMBERED, TriedInVain, trace_batch

REFUSING = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.collection_id = 'bad' THEN {how}; END IF;
        RETURN NEW;
    END
    $$;
    CREATE TRIGGER refuse BEFORE INSERT ON project_collections FOR EACH ROW EXECUTE FUNCTION refuse();
"""
RELENT = "DROP TRIGGER refuse ON project_collections"


@pytest.fixture(autouse=True)
async def _seeded(sql: asyncpg.Connection) -> None:
    await seed(sql)


async def traced(engine: AsyncEngine, sql: asyncpg.Connection, collection_id: str) -> tuple[int, str]:
    """Write a collection, let its event carry a trace that we know, and return both."""
    event_id, caller = await set_collection(engine, collection_id), made_up()
    await give(sql, event_id, caller)
    return event_id, caller


def outcome(spans: Sequence[ReadableSpan]) -> list[tuple[object, bool]]:
    """Return each span's outcome and whether it is an error."""
    return [
        (attributes(span)["collection_sync.outcome"], span.status.status_code is StatusCode.ERROR)
        for span in spans
    ]


async def test_a_batch_links_so_many_requests_and_says_how_many_more_there_are(
    engine: AsyncEngine, sql: asyncpg.Connection, spans: Spans
) -> None:
    callers = [(await traced(engine, sql, f"c{number}"))[1] for number in range(300)]
    await drain(engine)
    batch = spans.one(BATCH)
    assert links(batch) == [named_by(caller) for caller in callers[:MOST_LINKS]]
    assert batch.dropped_links == 0
    assert attributes(batch)["collection_sync.links_left_out"] == 300 - MOST_LINKS == 172
    assert attributes(batch)["messaging.batch.message_count"] == 300
    assert [place(span.parent) for span in spans.named(EVENT)] == [named_by(caller) for caller in callers]


async def test_a_request_that_wrote_many_events_is_linked_once(
    engine: AsyncEngine, sql: asyncpg.Connection, spans: Spans
) -> None:
    caller = made_up()
    for number in range(3):
        await give(sql, await set_collection(engine, f"c{number}"), caller)
    await drain(engine)
    assert links(spans.one(BATCH)) == [named_by(caller)]
    assert len(spans.named(EVENT)) == 3


async def test_an_event_without_a_sampled_trace_has_no_span_and_no_link(
    engine: AsyncEngine, sql: asyncpg.Connection, spans: Spans
) -> None:
    await set_collection(engine, "c1")
    await give(sql, await set_collection(engine, "c2"), made_up(sampled=False))
    await drain(engine)
    assert spans.named(EVENT) == []
    assert (links(spans.one(BATCH)), attributes(spans.one(BATCH))["collection_sync.applied"]) == ([], 2)


@pytest.mark.parametrize("attempts", [0, 1])
async def test_a_postponed_event_is_tried_in_the_batchs_trace_from_then_on(
    attempts: int, engine: AsyncEngine, sql: asyncpg.Connection, spans: Spans
) -> None:
    """Across processes the marks of cautious workers tell a later try; within one, its memory."""
    await sql.execute(REFUSING.format(how="RAISE EXCEPTION USING ERRCODE = '55P03'"))
    bad, caller = await traced(engine, sql, "bad")
    await set_collection(engine, "good")
    if attempts:
        await sql.execute("UPDATE outbox_events SET attempts = 1")
    await run_once_and_tell(engine)
    await sql.execute(RELENT)
    await run_once_and_tell(engine)
    first, second = spans.of_event(bad)
    batches = [place(context(batch)) for batch in spans.named(BATCH)]
    assert outcome([first, second]) == [("postponed", True), ("applied", False)]
    assert attributes(first)["db.response.status_code"] == "55P03"
    as_first, as_later = (named_by(caller), [batches[0]]), (batches[0], [named_by(caller)])
    assert (place(first.parent), links(first)) == (as_later if attempts else as_first)
    assert (place(second.parent), links(second)) == (batches[1], [named_by(caller)])


async def run_once_and_tell(engine: AsyncEngine) -> None:
    trace_batch(await run_once(engine), "call")


async def test_events_of_a_batch_that_failed_are_tried_in_the_batchs_trace_from_then_on(
    engine: AsyncEngine, sql: asyncpg.Connection, spans: Spans
) -> None:
    await sql.execute(REFUSING.format(how="RAISE EXCEPTION 'secret' USING ERRCODE = '40001'"))
    (bad, of_bad), (good, of_good) = [await traced(engine, sql, name) for name in ("bad", "good")]
    await Drainer(engine).drain("sweep")
    await sql.execute(RELENT)
    await drain(engine)
    failed, settled = spans.named(BATCH)
    assert (failed.status.status_code, settled.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert attributes(failed)["db.response.status_code"] == "40001"
    assert attributes(failed)["messaging.batch.message_count"] == 2
    for event_id, caller in ((bad, of_bad), (good, of_good)):
        first, second = spans.of_event(event_id)
        assert outcome([first, second]) == [("failed", True), ("applied", False)]
        assert (place(first.parent), links(first)) == (named_by(caller), [place(context(failed))])
        assert (place(second.parent), links(second)) == (place(context(settled)), [named_by(caller)])
    assert "secret" not in "".join(span.to_json() for span in spans.exporter.get_finished_spans())


async def test_the_neighbours_of_poison_are_settled_on_their_first_try(
    engine: AsyncEngine, sql: asyncpg.Connection, spans: Spans
) -> None:
    """That PostgreSQL refused the batch before it was divided is nobody's try: it passes within the same."""
    good, of_good = await traced(engine, sql, "good")
    poison, of_poison = await append_raw(sql, "c1", created_at="a secret word"), made_up()
    await give(sql, poison, of_poison)
    await drain(engine)
    (applied,), (dead,) = spans.of_event(good), spans.of_event(poison)
    assert outcome([applied, dead]) == [("applied", False), ("dead", True)]
    assert [place(span.parent) for span in (applied, dead)] == [named_by(of_good), named_by(of_poison)]
    assert attributes(dead)["db.response.status_code"] == "22007"
    assert "secret" not in "".join(span.to_json() for span in spans.exporter.get_finished_spans())
    assert await sql.fetch("SELECT id, traceparent FROM outbox_dead_letters") == [(poison, of_poison)]


async def test_a_batch_that_never_began_is_traced_as_well(engine: AsyncEngine, spans: Spans) -> None:
    async with engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE outbox_events RENAME TO gone")
    await Drainer(engine).drain("sweep")
    failed = spans.named(BATCH)
    assert {attributes(span)["messaging.batch.message_count"] for span in failed} == {0}
    assert {attributes(span)["error.type"] for span in failed} == {"UndefinedTableError"}


def test_what_was_tried_in_vain_is_remembered_in_bounds() -> None:
    tried = TriedInVain()
    for event_id in range(MOST_REMEMBERED + 10):
        tried.add(event_id)
    assert (9 in tried, 10 in tried, MOST_REMEMBERED + 9 in tried) == (False, True, True)
    tried.discard(10)
    tried.discard(10)
    assert 10 not in tried


async def test_a_worker_that_traces_nothing_starts_no_span(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await traced(engine, sql, "c1")
    monkeypatch.setattr(trace, "get_tracer", None)
    assert sum((await drain(engine)).values()) == 1


@pytest.mark.parametrize("source", [Source.REPAIR, Source.BACKFILL])
async def test_what_a_worker_appends_belongs_to_no_trace(
    source: Source, engine: AsyncEngine, sql: asyncpg.Connection, spans: Spans
) -> None:
    await traced(engine, sql, "c1")
    await drain(engine)
    assert spans.named(EVENT)
    async with engine.begin() as connection:
        assert await append_states(connection, ["c1"], EventType.UPDATED, source)
    assert await sql.fetch("SELECT traceparent FROM outbox_events") == [(None,)]


def test_a_claimed_event_knows_its_trace() -> None:
    drawn = made_up()
    row = (1, "c", "p1", "collection.updated", "api", 0.0, True, True, 0.0, 0, 0)
    assert ClaimedEvent(*row, traceparent=drawn).trace_id == drawn[3:35]
    assert ClaimedEvent(*row).trace_id is None
