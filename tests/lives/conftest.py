"""A whole system before its first worker, with a browser that is open on page and console."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from playwright.async_api import Browser

from deploy.local.valkey import Valkey
from tests.console.desk import TOKEN, Desk
from tests.dashboard.browser.conftest import chromium, own_browser
from tests.dashboard.browser.test_real_run import serving
from tests.dashboard.browser.watching import LIGHT, watch
from tests.dashboard.scripted import OLD_ROWS
from tests.legacy_rows import seed
from tests.lives.voices import Life
from tests.processes import HANG_SECONDS, environment, free_port, running_api

__all__ = ["chromium", "own_browser"]


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
async def life(
    database_url: str, own_valkey: Valkey, tmp_path: Path, sql: asyncpg.Connection, own_browser: Browser
) -> AsyncIterator[Life]:
    await seed(sql)
    await sql.execute(OLD_ROWS)
    (log := tmp_path / "all.log").touch()
    env = environment(database_url, own_valkey.url, LOG_FILE=str(log), ADMIN_TOKEN=TOKEN)
    port = free_port()
    async with (
        serving(env, log, port),
        running_api(env) as (api, address),
        httpx.AsyncClient(base_url=address, headers={"User-ID": "owner"}, timeout=HANG_SECONDS) as client,
    ):
        context = await own_browser.new_context(**LIGHT)
        page, console = await watch(context), Desk(await watch(context), address, api)
        await page.page.goto(f"http://127.0.0.1:{port}/")
        await console.open()
        await console.enter()
        yield Life(env, sql, client, page, console)
        await context.close()
        assert (page.errors, console.watched.errors) == ([], [])
