"""A headless Chromium for each test, of the system's package."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright

from tests.dashboard.browser.chromium import FLAGS
from tests.dashboard.browser.watching import HANG_MS
from tests.programs import needed


@pytest.fixture(scope="session")
def chromium() -> str:
    return needed("chromium")


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS, timeout=HANG_MS)
        yield browser
        await browser.close()
