"""The API as a client meets it: inside its lifespan, over ASGI, on a database with the recorded seed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from api.main import create_app
from shared.settings import Settings
from tests.api.recording import seed


@asynccontextmanager
async def started(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Start the app and hand out a client for it."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://api.example") as client,
    ):
        yield client


@pytest.fixture
async def seeded(sql: asyncpg.Connection) -> asyncpg.Connection:
    await seed(sql)
    return sql


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
async def client(seeded: asyncpg.Connection, app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    del seeded  # asked for so that the rows are there
    async with started(app) as client:
        yield client
