"""The console in a real browser, on a real API with its database."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from playwright.async_api import Browser

from tests.console.desk import TOKEN, Desk
from tests.dashboard.browser.conftest import chromium, own_browser
from tests.dashboard.browser.watching import LIGHT, watch
from tests.legacy_rows import seed
from tests.processes import environment, running_api

__all__ = ["chromium", "own_browser"]


@pytest.fixture
def env(database_url: str, redis_url: str) -> dict[str, str]:
    return environment(database_url, redis_url, ADMIN_TOKEN=TOKEN)


@pytest.fixture
async def desk(env: dict[str, str], sql: asyncpg.Connection, own_browser: Browser) -> AsyncIterator[Desk]:
    """The console, open at its form."""
    await seed(sql)
    async with running_api(env) as (api, address):
        context = await own_browser.new_context(**LIGHT)
        desk = Desk(await watch(context), address, api)
        await desk.open()
        yield desk
        await context.close()
