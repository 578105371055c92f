"""Make the pictures of docs/images anew: `python -m tests.dashboard.browser.screenshots`."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, FloatRect, Page, async_playwright

from tests.dashboard.browser.chromium import FLAGS
from tests.dashboard.browser.page_states import NOW, good, rich
from tests.dashboard.browser.watching import DARK, LIGHT, view
from tests.programs import PROGRAMS
from worker.dashboard.page_state import PageState
from worker.dashboard.rendering import self_contained

IMAGES = Path(__file__).parents[3] / "docs" / "images"
PHONE = view(390, color_scheme="light")
MOST_BYTES = 250_000


async def make_all() -> None:
    """Draw the day of `page_states`: its top in light and on a phone, and its charts in dark."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=PROGRAMS["chromium"].find(), args=FLAGS)
        await _take(browser, "light", rich(NOW), LIGHT, 1270)
        await _take(browser, "dark", good(NOW), DARK, 1270, part="section:has(#ranges)")
        await _take(browser, "narrow", rich(NOW), PHONE, 1300)
        await browser.close()


async def _take(
    browser: Browser,
    name: str,
    page_state: PageState,
    look: dict[str, Any],
    height: int,
    *,
    part: str | None = None,
) -> None:
    """Take a picture of a window of this height, or of one part of the page."""
    page_state.source.bytes_read = page_state.source.bytes_total
    context = await browser.new_context(**look | {"viewport": {**look["viewport"], "height": height}})
    page = await context.new_page()
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "page.html"
        file.write_text(self_contained(page_state), encoding="utf-8")
        await page.goto(f"{file.as_uri()}#range=1h")
        await page.locator(".plot svg.main-svg").nth(3).wait_for(state="attached")
        clip = None if part is None else await _with_a_margin(page, part)
        await page.screenshot(path=IMAGES / f"dashboard-{name}.png", full_page=clip is not None, clip=clip)
    size = (IMAGES / f"dashboard-{name}.png").stat().st_size
    assert size < MOST_BYTES, f"{name} has {size} bytes"
    await context.close()


async def _with_a_margin(page: Page, part: str) -> FloatRect:
    box = await page.locator(part).bounding_box()
    assert box is not None
    return FloatRect(x=box["x"] - 24, y=box["y"] - 16, width=box["width"] + 48, height=box["height"] + 32)


if __name__ == "__main__":
    asyncio.run(make_all())
