"""From HTTP to `project_collections` in one trace, in process and on a real database."""

import asyncpg
import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from api.gate.tracing import HEALTH
from tests.api.clients import ALL, OWNER, SEEDED, STRANGER, create
from tests.draining import drain
from tests.tracing.spans import BATCH, EVENT, Spans, attributes, context, links, made_up, named_by, place

POST = "POST /projects/{project_id}/collections"
CARRIED = "SELECT traceparent FROM outbox_events ORDER BY id DESC LIMIT 1"


def times(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time


async def test_one_trace_leads_from_the_caller_over_the_request_to_the_applied_event(
    client: httpx.AsyncClient, engine: AsyncEngine, spans: Spans
) -> None:
    caller = made_up()
    with capture_logs() as lines:
        answer = await client.post(
            ALL, headers=OWNER | {"traceparent": caller}, json={"collection_name": "secret words"}
        )
        await drain(engine)
    assert answer.status_code == 200
    request, applied, batch = spans.one(POST), spans.one(EVENT), spans.one(BATCH)

    assert place(request.parent) == named_by(caller)
    assert place(applied.parent) == place(context(request))
    assert {context(span).trace_id for span in (request, applied)} == {named_by(caller)[0]}
    assert (batch.parent, context(batch).trace_id == context(request).trace_id) == (None, False)
    assert (request.kind, applied.kind, batch.kind) == (SpanKind.SERVER, SpanKind.CONSUMER, SpanKind.CONSUMER)
    assert links(batch) == [place(context(request))]
    assert links(applied) == [place(context(batch))]

    assert times(applied) == times(batch)
    assert sorted(times(request) + times(applied)) == [*times(request), *times(applied)]

    written = next(line for line in lines if line["event"] == "collection_written")
    assert written["trace_id"] == caller[3:35]
    assert attributes(applied)["messaging.message.id"] == str(written["event_id"])
    assert "secret" not in "".join(span.to_json() for span in (request, applied, batch))


async def test_what_the_spans_say(client: httpx.AsyncClient, engine: AsyncEngine, spans: Spans) -> None:
    await create(client)
    await drain(engine, wake="sweep")
    request = attributes(spans.one(POST))
    assert (
        request.items()
        >= {
            "http.request.method": "POST",
            "http.route": "/projects/{project_id}/collections",
            "http.response.status_code": 200,
        }.items()
    )
    assert not [name for name in request if "user_agent" in name or "client" in name]
    common = {
        "messaging.system": "postgresql",
        "messaging.operation.type": "process",
        "messaging.destination.name": "outbox_events",
    }
    event_id = attributes(spans.one(EVENT))["messaging.message.id"]
    assert attributes(spans.one(EVENT)) == {
        **common,
        "messaging.operation.name": "apply",
        "messaging.message.id": event_id,
        "collection_sync.outcome": "applied",
        "collection_sync.lane": 0,
    }
    assert attributes(spans.one(BATCH)) == {
        **common,
        "messaging.operation.name": "process",
        "messaging.batch.message_count": 1,
        "collection_sync.applied": 1,
        "collection_sync.links_left_out": 0,
        "collection_sync.wake": "sweep",
    }


async def test_a_request_without_a_trace_begins_one(
    client: httpx.AsyncClient, engine: AsyncEngine, spans: Spans
) -> None:
    await create(client)
    await drain(engine)
    assert spans.one(POST).parent is None
    assert place(spans.one(EVENT).parent) == place(context(spans.one(POST)))


@pytest.mark.parametrize("span_count", [0, 1])
async def test_the_trace_of_the_caller_is_stored_whether_or_not_there_are_spans(
    span_count: int, client: httpx.AsyncClient, seeded: asyncpg.Connection, request: pytest.FixtureRequest
) -> None:
    caller = made_up()
    if span_count:
        request.getfixturevalue("spans")
    await client.put(SEEDED, headers=OWNER | {"traceparent": caller}, json={"description": "x"})
    carried = await seeded.fetchval(CARRIED)
    assert carried is not None
    assert (carried[:36], carried == caller) == (caller[:36], not span_count)


async def test_an_answer_names_the_trace_of_its_span(client: httpx.AsyncClient, spans: Spans) -> None:
    for path, status in ((ALL, 200), ("/nowhere", 404)):
        answer = await client.get(path, headers=OWNER)
        assert answer.status_code == status
        span = spans.exporter.get_finished_spans()[-1]
        assert answer.headers["X-Trace-ID"] == f"{context(span).trace_id:032x}"


async def test_a_request_whose_caller_is_not_sampled_has_no_spans_but_hands_its_trace_on(
    client: httpx.AsyncClient, engine: AsyncEngine, seeded: asyncpg.Connection, spans: Spans
) -> None:
    caller = made_up(sampled=False)
    await client.put(SEEDED, headers=OWNER | {"traceparent": caller}, json={"description": "x"})
    carried = await seeded.fetchval(CARRIED)
    assert (carried[3:35], carried[-2:]) == (caller[3:35], "00")
    await drain(engine)
    assert [span.name for span in spans.exporter.get_finished_spans()] == [BATCH]
    assert links(spans.one(BATCH)) == []


async def test_a_request_that_is_refused_has_a_span_and_one_that_fails_an_error(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, spans: Spans
) -> None:
    await client.post(ALL, headers=STRANGER, json={"collection_name": "x"})
    await seeded.execute("ALTER TABLE activity_logs ADD CONSTRAINT never CHECK (false) NOT VALID")
    await client.post(ALL, headers=OWNER, json={"collection_name": "x"})
    refused, failed = spans.named(POST)
    assert (attributes(refused)["http.response.status_code"], refused.status.status_code) == (
        403,
        StatusCode.UNSET,
    )
    assert (attributes(failed)["http.response.status_code"], failed.status.status_code) == (
        500,
        StatusCode.ERROR,
    )
    assert failed.events == ()


async def test_the_health_endpoints_have_no_spans(client: httpx.AsyncClient, spans: Spans) -> None:
    for path in HEALTH:
        await client.get(path)
    assert spans.exporter.get_finished_spans() == ()
