"""The spans of a batch: one of its own, and one for each event that a traced request wrote.

On its first try an event's span belongs to the request's trace, so that one trace shows a write from HTTP
to `project_collections`. On later ones it belongs to the batch's trace and links to the request: a trace
does not grow for as long as its event is tried.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode

from shared.postgres.faults import sqlstate
from shared.traceparent import span_context_of
from shared.tracing import is_on, tracer
from worker.relay.batch import Batch
from worker.relay.claim import ClaimedEvent
from worker.relay.outcomes import Outcome, Settlement

MOST_LINKS = 128  # of one span: the SDK's own bound, which would drop more without a word
MOST_REMEMBERED = 10_000  # events that were tried in vain

DESTINATION = "outbox_events"
PROCESSING = {
    "messaging.system": "postgresql",
    "messaging.operation.type": "process",
    "messaging.destination.name": DESTINATION,
}


class TriedInVain:
    """The events that batches of this process tried and did not settle; the last MOST_REMEMBERED of them."""

    def __init__(self) -> None:
        self._ids: OrderedDict[int, None] = OrderedDict()

    def add(self, event_id: int) -> None:
        """Remember the event, and forget the one remembered longest when there are too many."""
        self._ids[event_id] = None
        if len(self._ids) > MOST_REMEMBERED:
            self._ids.popitem(last=False)

    def discard(self, event_id: int) -> None:
        self._ids.pop(event_id, None)

    def __contains__(self, event_id: int) -> bool:
        return event_id in self._ids


_TRIED_IN_VAIN = TriedInVain()  # of the process, as the tracer is


def trace_batch(batch: Batch, wake: str) -> None:
    """Trace a batch that has just been committed; without a provider this does nothing.

    Args:
        batch: not empty. Its spans end now, so this is called before anything that takes time.
        wake: what woke the worker: `doorbell`, `sweep` or `poll`.

    """
    if not is_on():
        return
    counts = Counter(settlement.outcome for settlement in batch.settlements.values())
    outcomes = {f"collection_sync.{outcome}": counts[outcome] for outcome in Outcome if counts[outcome]}
    spans = _BatchSpans(batch.events, batch.duration_seconds, {"collection_sync.wake": wake, **outcomes})
    for event, request in spans.traced:
        settlement = batch.settlements[event.id]
        spans.add(event, request, settlement.outcome, _fault(settlement))
        if settlement.is_final:
            _TRIED_IN_VAIN.discard(event.id)
        else:
            _TRIED_IN_VAIN.add(event.id)
    spans.end()


def trace_failed_batch(events: Sequence[ClaimedEvent], error: Exception, seconds: float) -> None:
    """Trace a batch that was rolled back just now; without a provider this does nothing.

    Args:
        events: what it had claimed; none when it failed before.
        error: why. Its text is left out: it may quote what users wrote.
        seconds: since it began.

    """
    if not is_on():
        return
    fault = {"error.type": type(error).__name__}
    if code := sqlstate(error):
        fault["db.response.status_code"] = code
    spans = _BatchSpans(events, seconds, {})
    for event, request in spans.traced:
        spans.add(event, request, "failed", fault)
        _TRIED_IN_VAIN.add(event.id)
    spans.end(fault)


class _BatchSpans:
    """The span of a batch, begun when the batch was, and its events' spans beside it."""

    def __init__(
        self, events: Sequence[ClaimedEvent], seconds: float, attributes: Mapping[str, str | int]
    ) -> None:
        self._tracer = tracer()
        self._ended_at = time.time_ns()
        self._began_at = self._ended_at - round(seconds * 1e9)
        self.traced = list(_traced(events))
        requests = list({(request.trace_id, request.span_id): request for _, request in self.traced}.values())
        self._span = self._tracer.start_span(
            f"process {DESTINATION}",
            context=Context(),  # in a trace of its own
            kind=SpanKind.CONSUMER,
            attributes={
                **PROCESSING,
                "messaging.operation.name": "process",
                "messaging.batch.message_count": len(events),
                "collection_sync.links_left_out": max(len(requests) - MOST_LINKS, 0),
                **attributes,
            },
            links=[Link(request) for request in requests[:MOST_LINKS]],
            start_time=self._began_at,
        )

    def add(
        self, event: ClaimedEvent, request: SpanContext, outcome: str, fault: Mapping[str, str] | None
    ) -> None:
        """Make the span of one event: in the request's trace, or in the batch's if it was tried before."""
        is_first = event.attempts == 0 and event.id not in _TRIED_IN_VAIN
        batch = self._span.get_span_context()
        parent, linked = (request, batch) if is_first else (batch, request)
        span = self._tracer.start_span(
            f"apply {DESTINATION}",
            context=trace.set_span_in_context(trace.NonRecordingSpan(parent), Context()),
            kind=SpanKind.CONSUMER,
            attributes={
                **PROCESSING,
                "messaging.operation.name": "apply",
                "messaging.message.id": str(event.id),
                "collection_sync.outcome": outcome,
                "collection_sync.lane": event.lane,
            },
            links=[Link(linked)],
            start_time=self._began_at,
        )
        self._end(span, fault)

    def end(self, fault: Mapping[str, str] | None = None) -> None:
        """End the batch's span; with a fault it is an error."""
        self._end(self._span, fault)

    def _end(self, span: Span, fault: Mapping[str, str] | None) -> None:
        if fault is not None:
            span.set_attributes(fault)
            span.set_status(StatusCode.ERROR)
        span.end(self._ended_at)


def _traced(events: Iterable[ClaimedEvent]) -> Iterable[tuple[ClaimedEvent, SpanContext]]:
    """Return the events whose request is sampled, with the request's span."""
    for event in events:
        request = span_context_of(event.traceparent)
        if request.trace_flags.sampled:
            yield event, request


def _fault(settlement: Settlement) -> dict[str, str] | None:
    """Return the attributes of an event that could not be applied; None of any other."""
    if settlement.outcome not in {Outcome.DEAD, Outcome.POSTPONED}:
        return None
    return {} if settlement.sqlstate is None else {"db.response.status_code": settlement.sqlstate}
