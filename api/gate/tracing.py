"""Which trace a request belongs to. Its span, where there are spans, is FastAPI's own."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from fastapi import Request
from fastapi.telemetry import TelemetryConfig
from opentelemetry import context, trace
from opentelemetry.context import Context

from shared.traceparent import context_of

HEALTH = frozenset({"/healthz", "/readyz"})


def is_about_health(scope: MutableMapping[str, Any]) -> bool:
    """Return whether this is a probe: those come every few seconds and would only hide other spans."""
    return scope["path"] in HEALTH


# One span for a request, and for nothing within; its errors are logged, its numbers are metrics.
# Whether spans are sent, and where to, is decided by shared/tracing.py alone.
TELEMETRY: TelemetryConfig = {
    "exclude": is_about_health,
    "operation_spans": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}


@contextmanager
def in_its_trace(request: Request) -> Iterator[None]:
    """Run the body in the request's span or, where it has none, in the trace that its caller began.

    So an event carries its trace where nothing of OpenTelemetry is installed but its API. Of the headers
    only a well-formed `traceparent` is heeded.
    """
    if trace.get_current_span().get_span_context().is_valid:
        yield
        return
    token = context.attach(callers_context(request))
    try:
        yield
    finally:
        context.detach(token)


def callers_context(request: Request) -> Context:
    """Return the context that the request came with; an empty one when it names none, or several."""
    named = request.headers.getlist("traceparent")
    return context_of(named[0] if len(named) == 1 else None)
