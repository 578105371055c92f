from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from api.main import create_app
from api.shadow import sampler
from api.shadow.sampler import Shadow, shadow_engine
from shared.phase.phases import Phase
from shared.postgres.database import driver_connection
from shared.settings import Settings
from tests.api.clients import started
from tests.api.unhurried import take_time
from tests.draining import drain
from tests.legacy_rows import seed, set_collection
from tests.processes import HANG_SECONDS
from tests.shadow.situations import Scene, turn

NEVER = 3600.0


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing come by time: neither an end of patience, nor what is done every few seconds."""
    take_time(monkeypatch.setattr)
    monkeypatch.setattr(sampler, "STATEMENT_TIMEOUT_SECONDS", HANG_SECONDS)
    monkeypatch.setattr(sampler, "LOCK_TIMEOUT", "0")
    monkeypatch.setattr(sampler, "STORE_SECONDS", NEVER)
    monkeypatch.setattr(sampler, "LOOK_SECONDS", 0.0)


@pytest.fixture
async def scene(sql: asyncpg.Connection, engine: AsyncEngine) -> Scene:
    """Three collections in p1, applied, in the phase that compares."""
    await seed(sql)
    for name in "abc":
        await set_collection(engine, name, f"text of {name}")
    await drain(engine)
    await turn(sql, Phase.SHADOW_READS)
    return Scene(sql, engine)


@pytest.fixture
async def comparing(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the comparisons."""
    engine = shadow_engine(settings)
    async with driver_connection(engine) as connection:
        yield connection
    await engine.dispose()


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """An API that compares every list."""
    return create_app(settings.model_copy(update={"shadow_share": 1.0}))


@pytest.fixture
async def client(scene: Scene, app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    del scene  # asked for so that the rows are there
    async with started(app) as client:
        yield client


@pytest.fixture
def shadow(client: httpx.AsyncClient, app: FastAPI) -> Shadow:
    del client  # asked for so that it is started
    shadow: Shadow = app.state.collection_sync.shadow
    return shadow
