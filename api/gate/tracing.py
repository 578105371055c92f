"""Which trace a request belongs to. Its span, where there are spans, is FastAPI's own."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry import context, trace
from starlette.types import Scope

from shared.traceparent import context_of

TRACEPARENT = b"traceparent"
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
def in_its_trace(scope: Scope) -> Iterator[None]:
    """Run the body in the request's span or, where it has none, in the trace that its caller began.

    So an event carries its trace where nothing of OpenTelemetry is installed but its API. Of the headers
    only a well-formed `traceparent` is heeded.
    """
    has_span = trace.get_current_span().get_span_context().is_valid
    named = None if has_span else only_header(scope, TRACEPARENT)
    if named is None:
        yield
        return
    token = context.attach(context_of(named))
    try:
        yield
    finally:
        context.detach(token)


def only_header(scope: Scope, name: bytes) -> str | None:
    """Return the value of a header, its name in lower case; None where the request has none, or several."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else None
