"""The page on a phone: rows are cards, and causes come before charts."""

from dataclasses import replace

import pytest
from playwright.async_api import Browser, Page

from tests.dashboard.browser.page_states import rich
from tests.dashboard.browser.site import ADDRESS, serve
from tests.dashboard.browser.watching import Watched, view, watch
from worker.dashboard.page_state import PageState

pytestmark = pytest.mark.asyncio(loop_scope="session")  # in which the browser lives

TABLES = ("letters", "findings", "troubles", "workers", "lanes")
ROLES = """() => [...document.querySelectorAll('.cards')]
    .flatMap((table) => [table, ...table.querySelectorAll('tbody, thead, tr, th, td')])
    .filter((part) => !part.getAttribute('role')).length"""
ASIDE = "element => element.scrollWidth - element.clientWidth"


async def _opened(browser: Browser, page_state: PageState, width: int = 390) -> Watched:
    context = await browser.new_context(**view(width, color_scheme="light"))
    await serve(context, page_state, charts=False)
    watched = await watch(context)
    await watched.page.goto(ADDRESS)
    return watched


async def test_causes_come_before_charts(browser: Browser) -> None:
    page = (await _opened(browser, rich())).page
    titles = await page.locator("main h2").all_inner_texts()
    assert titles == [
        "Drift: 3", "May I go on?", "At a glance", "Dead letters", "Findings of audits",
        "Other warnings and errors", "Backfill", "Cutover", "Over time", "Workers",
        "Everything that was read",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [320, 390, 600])
async def test_rows_are_cards_that_name_their_cells_and_nothing_scrolls_sideways(
    width: int, browser: Browser
) -> None:
    page = (await _opened(browser, rich(), width)).page
    await page.locator("#backfill-history summary").click()
    for table in TABLES:
        assert await page.locator(f"#{table}-table").evaluate(ASIDE) <= 0, table
    assert await page.locator("#backfill-history .scroll").evaluate(ASIDE) <= 0
    assert await page.locator("html").evaluate(ASIDE) <= 0
    label = "getComputedStyle(document.querySelector('#letters-rows td:nth-child(2)'), '::before').content"
    assert await page.evaluate(label) == '"Reason" / ""'
    assert await page.evaluate(ROLES) == 0


async def test_the_reason_of_a_dead_letter_is_on_the_first_lines_of_its_card(browser: Browser) -> None:
    page = (await _opened(browser, rich())).page
    assert await _top(page, "#letters-rows td.long bdi") - await _top(page, "#letters-rows tr") < 60


async def _top(page: Page, place: str) -> float:
    box = await page.locator(place).first.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 390
    return box["y"]


async def test_findings_say_of_how_many_they_are_a_sample(browser: Browser) -> None:
    page_state = rich()
    page_state.audits[-1] = replace(
        page_state.audits[-1], missing=200_001, mismatched=0, orphaned=0, unlisted=199_978
    )
    watched = await _opened(browser, page_state)
    assert await watched.text("#findings-count") == (
        "5, a sample: audit 57 found 200,001 and logged 23 of them"
    )


async def test_a_wide_table_on_a_narrower_screen_can_be_seen_to_go_on(browser: Browser) -> None:
    page = (await _opened(browser, rich(), 760)).page
    assert await page.locator("#letters-table").evaluate(ASIDE) > 0
    assert "radial-gradient" in await page.locator("#letters-table").evaluate(
        "element => getComputedStyle(element).backgroundImage"
    )
