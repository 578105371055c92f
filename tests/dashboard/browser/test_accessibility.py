"""The page as axe sees it, and as somebody uses it who has no pointer."""

from collections.abc import Callable
from typing import Literal

import pytest
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import Browser, Page

from tests.dashboard.browser.page_states import empty, rich
from tests.dashboard.browser.site import ADDRESS, serve
from tests.dashboard.browser.watching import LIGHT, watch
from worker.dashboard.page_state import PageState

pytestmark = pytest.mark.asyncio(loop_scope="session")  # in which the browser lives

# Where the focus goes, as the nearest thing with a name.
FOCUSED = """() => {
    const focused = document.activeElement;
    return focused.value || focused.getAttribute('aria-label') || focused.getAttribute('aria-labelledby')
        || focused.textContent.trim();
}"""

TAKE_TONE = "(tone) => { document.getElementById('verdict').className = `verdict ${tone}`; }"


@pytest.mark.slow
@pytest.mark.parametrize("made", [pytest.param(rich, marks=pytest.mark.wide), empty])
async def test_axe_finds_no_violation_in_light_dark_or_narrow(
    made: Callable[[], PageState], browser: Browser
) -> None:
    context = await browser.new_context(**LIGHT)
    await serve(context, made())
    watched = await watch(context)
    await watched.page.goto(ADDRESS)
    await _open_tables(watched.page)
    await _assert_accessible(watched.page)
    await watched.page.emulate_media(color_scheme="dark")
    await _assert_accessible(watched.page)
    await watched.page.emulate_media(color_scheme="light")
    await watched.page.set_viewport_size({"width": 320, "height": 900})
    await _assert_accessible(watched.page)
    assert await watched.page.evaluate("document.documentElement.scrollWidth") == 320
    watched.assert_quiet()


@pytest.mark.wide
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_verdict_can_be_read(scheme: Literal["light", "dark"], browser: Browser) -> None:
    context = await browser.new_context(color_scheme=scheme)
    await serve(context, empty(), charts=False)
    page = (await watch(context)).page
    await page.goto(ADDRESS)
    for tone in ("good", "busy", "warning", "bad", "unknown"):
        await page.evaluate(TAKE_TONE, tone)
        found = await Axe().run(page, "#verdict", {"runOnly": ["color-contrast"]})
        assert found.violations_count == 0, found.generate_report()
        assert found.response["passes"]


async def _assert_accessible(page: Page) -> None:
    found = await Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert len(found.response["passes"]) > 20


async def _open_tables(page: Page) -> None:
    for summary in await page.locator("#agreement summary:visible, #backfill-history summary:visible").all():
        await summary.click()


@pytest.mark.wide
async def test_the_tab_key_reaches_all_that_can_be_used_or_scrolled_and_the_link_past_it(
    browser: Browser,
) -> None:
    context = await browser.new_context(**LIGHT)
    await serve(context, rich(), charts=False)
    page = (await watch(context)).page
    await page.goto(f"{ADDRESS}#range=24h")
    reached = []
    for _ in range(18):
        await page.keyboard.press("Tab")
        reached.append(await page.evaluate(FOCUSED))
    assert reached == [
        "Skip to the verdict",
        "Copy python -m worker.audit --repair",
        "Copy python -m worker.dead_letters list",
        "Table of dead letters",
        *(f"Copy python -m worker.dead_letters show {letter}" for letter in (1204991, 1198240)),
        *(f"Table of {rows}" for rows in ("findings", "other warnings and errors")),
        "All runs",
        "24h",
        *(f"Data of the {chart} chart" for chart in ("agreement", "lag", "throughput", "waiting")),
        "What the marks are: 9",
        *(f"Table of {rows}" for rows in ("workers", "lanes")),
        "The last broken line",
    ]
    await page.locator(".skip").focus()
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "verdict"
    assert page.url == f"{ADDRESS}#range=24h"


@pytest.mark.wide
async def test_arrow_keys_choose_the_range_and_a_reload_keeps_it(browser: Browser) -> None:
    context = await browser.new_context(**LIGHT)
    await serve(context, rich())
    page = (await watch(context)).page
    await page.goto(f"{ADDRESS}#range=15m")
    said = page.locator("#throughput .plot")
    quarter = await said.get_attribute("aria-label")
    await page.locator("#ranges input:checked").focus()
    await page.keyboard.press("ArrowRight")
    hour = await said.get_attribute("aria-label")
    await page.reload()
    assert await page.locator("#ranges input:checked").get_attribute("value") == "1h"
    assert await said.get_attribute("aria-label") == hour != quarter
    assert "last hour" in str(hour)


@pytest.mark.wide
async def test_each_chart_says_its_numbers_in_a_sentence_and_in_a_table(browser: Browser) -> None:
    context = await browser.new_context(**LIGHT)
    await serve(context, rich())
    page = (await watch(context)).page
    await page.goto(f"{ADDRESS}#range=1h")
    assert await page.locator("#agreement .plot").get_attribute("aria-label") == (
        "7 audits, of which 1 found drift. The last, at 16:59:20, compared 120,417 pairs:"
        " 1 missing, 1 mismatched, 1 orphaned and 2 pending."
    )
    await page.locator("#agreement summary").click()
    rows = page.locator("#agreement tbody tr")
    await rows.first.wait_for()
    assert await rows.count() == 7
    assert (await rows.first.inner_text()).split("\t") == ["16:59:20", "drift", "120,417", "1", "1", "1", "2"]
    for chart in ("lag", "throughput", "waiting"):
        await page.locator(f"#{chart} summary").click()
        await page.locator(f"#{chart} tbody tr").first.wait_for()
        assert await page.locator(f"#{chart} tbody tr").count() <= 60


async def test_no_tone_is_told_by_colour_alone(browser: Browser) -> None:
    context = await browser.new_context(**LIGHT)
    await serve(context, rich(), charts=False)
    page = (await watch(context)).page
    await page.goto(ADDRESS)
    assert await page.locator("#verdict-shape").get_attribute("href") == "#shape-bad"
    toned = page.locator(".badge:visible, .tile .bad, .tile .warning")
    assert await toned.count() > 10
    for index in range(await toned.count()):
        assert await toned.nth(index).locator("use").count() == 1
        assert await toned.nth(index).inner_text() != ""
    for sign in await page.locator(".unequal").all():
        assert "differs:" in str(await sign.text_content())
