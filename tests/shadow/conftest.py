from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api.shadow.sampler import shadow_engine
from shared.postgres.database import driver_connection
from shared.settings import Settings
from tests.legacy_rows import seed


@pytest.fixture(autouse=True)
async def _seeded(sql: asyncpg.Connection) -> None:
    await seed(sql)


@pytest.fixture
async def shadow(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """The engine of the comparisons."""
    engine = shadow_engine(settings)
    yield engine
    await engine.dispose()


@pytest.fixture
async def comparing(shadow: AsyncEngine) -> AsyncIterator[asyncpg.Connection]:
    """A connection of it."""
    async with driver_connection(shadow) as connection:
        yield connection
