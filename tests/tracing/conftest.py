"""Spans of this process, kept in memory as OpenTelemetry's own exporter for tests keeps them."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.api import conftest as api
from tests.tracing.spans import Spans
from worker.telemetry.spans import TriedInVain

# The API over ASGI, on the recorded seed.
seeded, app, client = api.seeded, api.app, api.client

__all__ = ["app", "client", "seeded"]


@pytest.fixture(autouse=True)
def _nothing_tried_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events of another test's database have the same ids."""
    monkeypatch.setattr("worker.telemetry.spans._TRIED_IN_VAIN", TriedInVain())


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """Switch tracing on in this process until the test ends."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield Spans(exporter)
    provider.shutdown()
