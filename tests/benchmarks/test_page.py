"""The page of a benchmark holds every figure, with and without its plots, and asks for nothing."""

from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import Browser, Page

from benchmarks.figures import Figure
from benchmarks.page import as_page
from tests.benchmarks.measured import GROWING, measured
from tests.dashboard.browser.conftest import browser, chromium, one_browser
from tests.dashboard.browser.watching import Watched, watch

__all__ = ["browser", "chromium", "one_browser"]  # fixtures
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.wide]  # in which the browser lives

ENVIRONMENT = {"postgresql": "18.4", "fsync": "on"}
WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 320, "height": 900}
TEXTS = "elements => elements.map(element => element.innerText)"
CELLS = "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))"
DRAWN = """plot => ({
    bars: plot.data[0].x, points: plot.data[1].x, targets: plot.layout.shapes.map(shape => shape.x0),
    colours: plot.data[0].marker.color, labels: plot.layout.annotations.length,
})"""


LINES = """plot => ({
    lines: plot.data.map(line => [line.name, line.x, line.y]),
    axes: [plot.layout.xaxis.type, plot.layout.yaxis.type],
})"""


async def opened(browser: Browser, directory: Path, *figures: Figure) -> Watched:
    path = directory / "bench.html"
    path.write_text(as_page([measured(*figures)], ENVIRONMENT), encoding="utf-8")
    watched = await watch(await browser.new_context(viewport=WIDE, color_scheme="light"))  # type: ignore[arg-type]
    await watched.page.goto(path.as_uri())
    await watched.page.locator(".plot .main-svg").last.wait_for()
    return watched


async def test_the_page_shows_every_figure_as_a_plot_and_in_a_table_and_asks_for_nothing(
    browser: Browser, tmp_path: Path
) -> None:
    watched = await opened(browser, tmp_path)
    page = watched.page
    assert watched.hosts() == {""}  # the file itself
    assert len(watched.requested) == 1
    watched.assert_quiet()
    assert await watched.text("#verdict-title") == "2 of 3 targets met"
    assert "ours & theirs >= 0.95 x bare <SQL>" in await watched.text("#verdict-detail")
    assert await page.eval_on_selector_all("dt, dd", TEXTS) == ["postgresql", "18.4", "fsync", "on"]
    assert await page.eval_on_selector_all("#targets tbody tr", CELLS) == [
        ["met", "drain", "bare <SQL> >= 150 rows/s", "200"],
        ["MISSED", "drain", "ours & theirs >= 0.95 x bare <SQL>", "0.9"],
        ["met", "drain", "p99 <= 15 ms", "3.25"],
    ]
    assert await page.eval_on_selector_all("[aria-label='Table of drain'] tbody tr", CELLS) == [
        ["bare <SQL>", "200", "rows/s", "100", "400", "3", ""],
        ["ours & theirs", "90", "rows/s", "20", "360", "3", "0.900 x bare <SQL>"],
        ["p99", "3.25", "ms", "3.25", "3.25", "1", ""],
    ]
    good, bad = [
        await page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{tone}').trim()")
        for tone in ("good", "bad")
    ]
    ratios = await page.eval_on_selector("#drain-ratios", DRAWN)
    assert ratios == {
        "bars": [0.9],
        "points": [0.9, 0.1, 0.9],
        "targets": [0.95],
        "colours": [bad],
        "labels": 1,
    }
    milliseconds = await page.eval_on_selector("#drain-1", DRAWN)
    assert (milliseconds["bars"], milliseconds["targets"], milliseconds["colours"]) == ([3.25], [15], [good])


async def test_the_page_can_be_read_in_the_dark_on_a_narrow_screen_and_by_keyboard(
    browser: Browser, tmp_path: Path
) -> None:
    page = (await opened(browser, tmp_path)).page
    await assert_accessible(page)
    light = await page.eval_on_selector("#drain-ratios", DRAWN)
    await page.emulate_media(color_scheme="dark")
    await assert_accessible(page)
    assert (await page.eval_on_selector("#drain-ratios", DRAWN))["colours"] != light["colours"]
    await page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    await assert_accessible(page)
    assert await page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]
    for name in ("Skip to the targets", "Table of targets", "drain", "drain", "drain", "Table of drain"):
        await page.keyboard.press("Tab")
        focused = "document.activeElement.ariaLabel ?? document.activeElement.textContent"
        assert await page.evaluate(focused) == name


async def test_what_was_measured_at_several_sizes_is_a_line_on_logarithmic_axes(
    browser: Browser, tmp_path: Path
) -> None:
    page = (await opened(browser, tmp_path, *GROWING)).page
    drawn = await page.eval_on_selector("#drain-0", LINES)
    assert drawn == {"lines": [["log", [10, 100], [20, 200]]], "axes": ["log", "log"]}
    await assert_accessible(page)


async def assert_accessible(page: Page) -> None:
    found = await Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert len(found.response["passes"]) > 15
