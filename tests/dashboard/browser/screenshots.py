"""Make the pictures of docs/images anew: `python -m tests.dashboard.browser.screenshots`."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, async_playwright

from tests.dashboard.browser.chromium import FLAGS
from tests.dashboard.browser.page_states import NOW, good, rich
from tests.dashboard.browser.watching import DARK, LIGHT, NARROW
from tests.programs import PROGRAMS
from worker.dashboard.page_state import PageState
from worker.dashboard.rendering import self_contained

IMAGES = Path(__file__).parents[3] / "docs" / "images"
MOST_BYTES = 250_000


async def make_all() -> None:
    """Draw the day of `page_states` in light, in dark and on a phone."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=PROGRAMS["chromium"].find(), args=FLAGS)
        await _take(browser, "light", rich(NOW), LIGHT, 1270)
        await _take(browser, "dark", good(NOW), DARK, 1270)
        await _take(browser, "narrow", rich(NOW), NARROW, 1500)
        await browser.close()


async def _take(
    browser: Browser, name: str, page_state: PageState, look: dict[str, Any], height: int
) -> None:
    page_state.source.bytes_read = page_state.source.bytes_total
    context = await browser.new_context(**look | {"viewport": {**look["viewport"], "height": height}})
    page = await context.new_page()
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "page.html"
        file.write_text(self_contained(page_state), encoding="utf-8")
        await page.goto(f"{file.as_uri()}#range=1h")
        await page.locator(".plot svg.main-svg").nth(3).wait_for(state="attached")
        await page.screenshot(path=IMAGES / f"dashboard-{name}.png")
    size = (IMAGES / f"dashboard-{name}.png").stat().st_size
    assert size < MOST_BYTES, f"{name} has {size} bytes"
    await context.close()


if __name__ == "__main__":
    asyncio.run(make_all())
