"""The API's metrics, served by the process itself: docs/metrics.md says what each one means.

They belong to the service of `api.main` and not to the router that a host mounts: a host has its own.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

from fastapi import APIRouter, Request, Response
from prometheus_client import Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from sqlalchemy.pool import QueuePool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.context import CollectionSync
from api.gate.admission import POOL_SIZE
from api.gate.forgiving_route import ForgivingRoute
from shared.events import EventType
from shared.metrics import Counter, Histogram, gauge, open_registry
from shared.phase.comparison import Outcome

REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SIDES = ("legacy", "target")
OTHER = "other"  # whatever a client makes up: it must not make a new series


class ProcessState(Collector):
    """What the process knows of itself, read at each scrape; before it runs, names without numbers."""

    def __init__(self) -> None:
        self.sync: CollectionSync | None = None
        self.in_flight = 0

    def collect(self) -> Iterator[Metric]:
        yield gauge("http_requests_in_flight", "Requests that are not answered yet.", self.in_flight)
        yield gauge("database_connections_in_use", "Connections of the pool at work.", connections(self.sync))
        yield gauge("database_connections_limit", "Connections that the pool has at most.", POOL_SIZE)
        heard, read_only = (
            (self.sync.doorbell.is_heard, self.sync.settings.read_only_mode) if self.sync else (None, None)
        )
        yield gauge("doorbell_up", "Whether Redis took the last ring.", heard)
        yield gauge("read_only", "Whether every write is refused.", read_only)
        yield from refused(self.sync).collect()
        yield from appended(self.sync).collect()
        yield from shadowed(self.sync)


def connections(sync: CollectionSync | None) -> int | None:
    pool = sync and sync.engine.pool
    return pool.checkedout() if isinstance(pool, QueuePool) else None


def refused(sync: CollectionSync | None) -> Counter:
    counter = Counter("requests_refused", "Requests answered with 503 for want of room.", lane=())
    if sync is not None:
        for bulkhead in fields(sync.bulkheads):
            counter.add(bulkhead.name, count=getattr(sync.bulkheads, bulkhead.name).refused_in_all)
    return counter


def appended(sync: CollectionSync | None) -> Counter:
    counter = Counter("events_appended", "Events of committed writes.", event_type=EventType)
    if sync is not None:
        for event_type, count in sync.appended.copy().items():
            counter.add(event_type, count=count)
    return counter


def shadowed(sync: CollectionSync | None) -> Iterator[Metric]:
    lists = Counter("shadow_lists", "Sampled lists by what came of comparing them.", outcome=Outcome)
    seconds = Counter("shadow_seconds", "What reading either side took, in all comparisons.", side=SIDES)
    back = Counter("reads_fell_back", "How often this process moved reads back to collections.")
    if sync is not None:
        totals = sync.shadow.counts.totals
        for outcome, count in totals.lists.copy().items():
            lists.add(outcome, count=count)
        for side, took in zip(SIDES, (totals.legacy_seconds, totals.target_seconds), strict=True):
            seconds.add(side, count=took)
        back.add(count=sync.shadow.mismatches.fell_back)
    for counter in (lists, seconds, back):
        yield from counter.collect()


class ApiMetrics:
    """The metrics of one API process."""

    def __init__(self) -> None:
        self.state = ProcessState()
        self._requests = Counter("http_requests", "Requests answered.", method=(), route=(), status=())
        self._duration = Histogram(
            "http_request_duration_seconds",
            "From the request's head to the end of its answer.",
            REQUEST_SECONDS,
            method=(),
            route=(),
        )
        self.registry = open_registry(self.state, self._requests, self._duration)

    @contextmanager
    def showing(self, sync: CollectionSync) -> Iterator[None]:
        self.state.sync = sync
        try:
            yield
        finally:
            self.state.sync = None

    def count(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request that was answered; its path only as the template of the route that took it."""
        method = scope["method"] if scope["method"] in METHODS else OTHER
        route = getattr(scope.get("route"), "path", OTHER)
        self._requests.add(method, route, f"{status // 100}xx")
        self._duration.observe(seconds, method, route)


class Measured:
    """ASGI middleware that counts requests; it changes nothing about them."""

    def __init__(self, app: ASGIApp, metrics: ApiMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; one that ends in an exception counts as answered with 500."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.state.in_flight += 1
        try:
            await self._app(scope, receive, note_status)
        finally:
            self._metrics.state.in_flight -= 1
            self._metrics.count(scope, status, time.perf_counter() - began)


router = APIRouter(include_in_schema=False, route_class=ForgivingRoute)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Show the process's metrics to Prometheus: numbers only, so they are as open as the health endpoints."""
    exposed: ApiMetrics = request.app.state.metrics
    text = await asyncio.to_thread(generate_latest, exposed.registry)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
