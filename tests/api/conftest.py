"""The API as a client meets it: inside its lifespan, over ASGI, on a database with the recorded seed."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from api.main import create_app
from shared.settings import Settings
from tests.api.clients import started
from tests.api.recording import seed
from tests.api.unhurried import take_time


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody give up because the machine is slow; who tests that somebody does, sets another bound."""
    take_time(monkeypatch.setattr)


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
