import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.legacy_rows import seed
from worker.capture.change import Planned, change

Capture = Callable[[str | None], Awaitable[Planned]]


@pytest.fixture(autouse=True)
async def _seeded(sql: asyncpg.Connection) -> None:
    await seed(sql)


@pytest.fixture
def capture(engine: AsyncEngine) -> Capture:
    """Install the capture, change its mode, or remove it with None, as the command does."""

    async def bring(mode: str | None) -> Planned:
        return await change(engine, mode, interrupted=asyncio.Event(), watch=lambda _: None)

    return bring
