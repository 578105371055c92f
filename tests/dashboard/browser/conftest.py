"""A headless Chromium of the system's package: one for all tests of a process, or one of a test's own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.dashboard.browser.chromium import FLAGS
from tests.dashboard.browser.watching import HANG_MS
from tests.programs import needed


@asynccontextmanager
async def running_browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS, timeout=HANG_MS)
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def chromium() -> str:
    return needed("chromium")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def one_browser(chromium: str) -> AsyncIterator[Browser]:
    async with running_browser(chromium) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def browser(one_browser: Browser) -> AsyncIterator[Browser]:
    """The process's browser, for tests of the session's event loop; what a test opened is closed after it."""
    yield one_browser
    for context in one_browser.contexts:
        await context.close()


@pytest.fixture
async def own_browser(chromium: str) -> AsyncIterator[Browser]:
    """A browser of the test's own event loop, in which databases are."""
    async with running_browser(chromium) as browser:
        yield browser
