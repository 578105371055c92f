"""The span of a request, and the trace that its caller began."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from fastapi import Request, Response
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode

from shared.traceparent import context_of
from shared.tracing import tracer


@contextmanager
def span_of(request: Request) -> Iterator[Span]:
    """Run the body in a span of its own, in the trace that the request came with or in a new one.

    Where no provider is installed there is no new span: the caller's is the current one, if it sent a
    `traceparent` that is well formed. Nothing else of the request's headers is heeded, and of what it
    holds only the method and the route's template are told. Where the host application has a span for
    the request already, the body runs in that one.
    """
    if trace.get_current_span().get_span_context().is_valid:
        yield INVALID_SPAN
        return
    route = request.scope["route"].path
    span = tracer().start_span(
        f"{request.method} {route}",
        context=caller_of(request),
        kind=SpanKind.SERVER,
        attributes={"http.request.method": request.method, "http.route": route},
    )
    # An error's text may quote what users wrote.
    with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        yield span


def caller_of(request: Request) -> Context:
    """Return the context that the request came with; an empty one when it names none, or several."""
    named = request.headers.getlist("traceparent")
    return context_of(named[0] if len(named) == 1 else None)


def note_answer(span: Span, response: Response) -> None:
    """Tell how the request was answered."""
    span.set_attribute("http.response.status_code", response.status_code)
    if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        span.set_status(StatusCode.ERROR)
