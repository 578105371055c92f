"""The trace that something happens in, as W3C Trace Context writes it: `00-<trace>-<span>-<flags>`.

This needs nothing but OpenTelemetry's API: where no SDK is installed, a trace that came with a request is
handed on all the same.
"""

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

# Characters; later versions of the header may be longer than the 55 of this one. Of what is longer still the
# propagator would log a line for each request.
LONGEST = 512

_PROPAGATOR = TraceContextTextMapPropagator()


def context_of(traceparent: str | None) -> Context:
    """Return a context in which this is the current span, or an empty one when it is not well formed."""
    if traceparent is None or len(traceparent) > LONGEST:
        return Context()
    return _PROPAGATOR.extract({"traceparent": traceparent}, Context())


def span_context_of(traceparent: str | None) -> SpanContext:
    """Return the span that is named; one that is not valid when it is not well formed."""
    return trace.get_current_span(context_of(traceparent)).get_span_context()


def current_traceparent() -> str | None:
    """Name the span that this code runs in, in 55 characters; None when there is none.

    Of the flags only `sampled` is handed on: what others mean is not known here.
    """
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags & TraceFlags.SAMPLED:02x}"


def trace_id_of(traceparent: str) -> str:
    return traceparent[3:35]


def current_trace_id() -> str | None:
    """Return the trace that this code runs in; None when there is none."""
    traceparent = current_traceparent()
    return None if traceparent is None else trace_id_of(traceparent)
