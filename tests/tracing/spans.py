"""What the exporter got, by name; and traces that some caller began."""

import random
from dataclasses import dataclass

import asyncpg
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

BATCH = "process outbox_events"
EVENT = "apply outbox_events"


@dataclass(frozen=True)
class Spans:
    """The spans that ended so far."""

    exporter: InMemorySpanExporter

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def of_event(self, event_id: int) -> list[ReadableSpan]:
        return [
            span for span in self.named(EVENT) if attributes(span)["messaging.message.id"] == str(event_id)
        ]


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def context(span: ReadableSpan) -> SpanContext:
    found = span.get_span_context()
    assert found is not None
    return found


def place(span_context: SpanContext | None) -> tuple[int, int] | None:
    """Return trace and span; what is compared."""
    return None if span_context is None else (span_context.trace_id, span_context.span_id)


def links(span: ReadableSpan) -> list[tuple[int, int] | None]:
    return [place(link.context) for link in span.links]


def made_up(*, sampled: bool = True) -> str:
    """Return the `traceparent` of a caller that nobody knows."""
    drawn = random.SystemRandom()
    trace_id, span_id = drawn.getrandbits(127) + 1, drawn.getrandbits(63) + 1
    return f"00-{trace_id:032x}-{span_id:016x}-{'01' if sampled else '00'}"


def named_by(traceparent: str) -> tuple[int, int]:
    return int(traceparent[3:35], 16), int(traceparent[36:52], 16)


async def give(sql: asyncpg.Connection, event_id: int, traceparent: str | None) -> str | None:
    """Let a pending event carry this trace."""
    await sql.execute("UPDATE outbox_events SET traceparent = $2 WHERE id = $1", event_id, traceparent)
    return traceparent
