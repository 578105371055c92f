"""The API's composition root: `uvicorn api.main:app`."""

import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute

from api.admin.routes import admin
from api.context import collection_sync
from api.docs_page import add_docs_page
from api.gate.identified import Identified
from api.gate.tracing import TELEMETRY
from api.health import health
from api.metrics import ApiMetrics, Measured
from api.metrics import router as metrics_router
from api.routes import router
from shared.logs.setup import configure_logging
from shared.process.streams import open_closed
from shared.settings import Settings, SettingsError, load_settings, refuse
from shared.tracing import Tracing, require_exporter
from shared.version import read_version


def create_app(settings: Settings) -> FastAPI:
    """Build the service for these settings; it connects to nothing before it is started."""
    metrics = ApiMetrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tracing = Tracing("api")
        tracing.start()
        try:
            async with collection_sync(app, settings):
                with metrics.showing(app.state.collection_sync):
                    yield
        finally:
            tracing.stop()

    app = FastAPI(
        title="Collections",
        version=read_version(),
        description="The collections of research projects, as the legacy service offers them.",
        lifespan=lifespan,
        telemetry=TELEMETRY,
        generate_unique_id_function=operation_id,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # our routes do so themselves: api/gate/forgiving_route.py
    )
    app.include_router(router)
    app.include_router(admin)
    app.include_router(health)
    app.include_router(metrics_router)
    add_docs_page(app)
    app.state.metrics = metrics
    app.add_middleware(Measured, metrics=metrics)
    app.add_middleware(Identified)
    return app


def operation_id(route: APIRoute) -> str:
    """Name an operation as its function is: what clients that are generated call it by."""
    return route.name


def __getattr__(name: str) -> FastAPI:
    """Make `app` when a server asks for it, so that to import this module needs no environment.

    The log is configured then, which is before uvicorn's first line.
    """
    if name != "app":
        raise AttributeError(name)
    open_closed()  # before uvicorn makes its loop
    try:
        require_exporter()
        settings = load_settings(Settings)
    except SettingsError as error:
        refuse(error)
    configure_logging("api", settings.log_file, sys.stdout)
    app = create_app(settings)
    gc.freeze()  # what is imported stays; to look through it for garbage would stop all requests for 60 ms
    return app
