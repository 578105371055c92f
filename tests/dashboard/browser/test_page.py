"""What the page does with texts, time and silence."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext

from tests.dashboard.browser.page_states import HOSTILE, LANES, NOW, empty, good, hostile, rich
from tests.dashboard.browser.site import ADDRESS, Site, serve
from tests.dashboard.browser.watching import LIGHT, PAGE_ASKS_SECONDS, Watched, watch
from worker.command_line.writing import write_page
from worker.dashboard.page_state import PageState
from worker.dashboard.rendering import self_contained

pytestmark = pytest.mark.asyncio(loop_scope="session")  # in which the browser lives

SHOWN_HOSTILE = HOSTILE.replace("\u2028", "⟨U+2028⟩").replace("\u202e", "⟨U+202E⟩")
LAST_AUDIT = "compared 120,417 missing 1 mismatched 1 orphaned 1 pending 2"


async def _opened(browser: Browser, page_state: PageState, *, charts: bool = False) -> tuple[Site, Watched]:
    """Open the page on a page_state, with a clock that only the test moves."""
    context = await browser.new_context(**LIGHT)
    await context.clock.install(time=0)  # the browser believes in 1970: no age may come from its clock
    await context.clock.pause_at(1)
    site = await serve(context, page_state, charts=charts)
    watched = await watch(context)
    await watched.page.goto(ADDRESS)
    return site, watched


async def test_texts_of_the_log_are_shown_as_they_are_and_nothing_in_them_runs(browser: Browser) -> None:
    _, watched = await _opened(browser, hostile(), charts=True)
    await watched.page.locator("#agreement summary").click()
    for place in ("#verdict-title", "#verdict-detail", "#go-on-reasons", "#letters-rows", "#findings-rows",
                  "#workers-rows", "#troubles-rows", "#backfill-throttle", "#source-sample",
                  "#source-unread-files", "#marks-list"):  # fmt: skip
        assert SHOWN_HOSTILE in str(await watched.page.locator(place).text_content()), place
    assert (
        await watched.page.evaluate("document.querySelectorAll('main img, main script, main b').length") == 0
    )
    assert "broken in" not in (await watched.page.title()).replace(SHOWN_HOSTILE, "").replace(HOSTILE, "")
    assert await watched.page.evaluate("document.querySelectorAll('.plot bdi, .plot a').length") == 0
    assert "onerror" not in "".join(await watched.page.locator(".plot").all_inner_texts())
    watched.assert_quiet()


async def test_ages_tick_by_the_servers_clock_whatever_the_browsers_clock_says(browser: Browser) -> None:
    _, watched = await _opened(browser, rich(live=True))
    assert await watched.text("#verified") == "Audited 40 s ago"
    assert await watched.text("#heartbeat") == "Last heartbeat 3 s ago"
    await watched.page.clock.run_for(5_000)
    assert await watched.text("#verified") == "Audited 45 s ago"
    assert await watched.text("#heartbeat") == "Last heartbeat 8 s ago"
    assert "120,417" in await watched.text("#tile-audit")


async def test_the_page_turns_blind_by_its_own_clock_and_only_changes_are_announced(browser: Browser) -> None:
    site, watched = await _opened(browser, good(live=True))
    await watched.page.evaluate("""() => {
        window.announced = 0;
        const everything = {childList: true, subtree: true, characterData: true};
        new MutationObserver(() => { window.announced++; })
            .observe(document.querySelector('[role=status]'), everything);
    }""")
    verdict = replace(site.page_state.verdict, verified_at=NOW - 1)
    site.page_state = replace(site.page_state, verdict=verdict)  # made anew, and it says the same
    await _pass(watched, 2)
    await watched.until("() => /^Audited [12] s ago$/.test(document.getElementById('verified').textContent)")
    await watched.page.clock.run_for(9_000)
    assert await watched.state() == "in_sync"
    assert await watched.text("#go-on-answer") == "Yes"
    assert await watched.page.evaluate("window.announced") == 0
    await watched.page.clock.run_for(3_000)
    assert await watched.state() == "blind"
    assert (await watched.text("#verdict-title"), await watched.text("#go-on-answer")) == ("Blind", "No")
    assert await watched.page.evaluate("window.announced") > 0
    assert "silent" in await watched.text("#workers-rows tr:first-child")
    assert re.fullmatch(r"live \N{EN DASH} was 4, 1[56] s ago .*", await watched.text("#tile-pending"))
    assert "python -m worker" in await watched.text("#go-on-reasons")
    site.page_state = good(NOW + 14, live=True)
    await watched.page.clock.run_for(1_000)
    await watched.until("() => document.getElementById('verdict').dataset.state === 'in_sync'")


@pytest.mark.wide
async def test_a_silent_dashboard_gets_a_notice_then_an_unknown_verdict_and_recovers(
    browser: Browser,
) -> None:
    site, watched = await _opened(browser, good(live=True))
    for _ in range(2):
        site.away = True
        await _pass(watched, 5)
        assert await watched.page.locator("#notice").is_visible()
        assert re.fullmatch(
            r"The dashboard does not answer; what you see is old\. Silent for [3-5] s\.",
            await watched.text("#notice"),
        )
        assert await watched.state() == "in_sync"
        await _pass(watched, 12)
        assert await watched.state() == "unanswered"
        assert (await watched.text("#verdict-title"), await watched.text("#go-on-answer")) == (
            "Unknown",
            "No",
        )
        site.away = False
        site.page_state = good(site.page_state.made_at + 17, live=True)
        await _pass(watched, 2)
        await watched.page.locator("#notice").wait_for(state="hidden")
        assert await watched.state() == "in_sync"


async def _pass(watched: Watched, seconds: int) -> None:
    """Let time pass in small steps, so that questions are answered meanwhile."""
    for _ in range(seconds * 2):
        await watched.page.clock.run_for(500)
        await watched.answered()


async def test_the_page_asks_again_soon_after_each_answer(browser: Browser) -> None:
    site, watched = await _opened(browser, good(live=True))
    await watched.answered()
    site.answered.clear()
    for asked in range(1, 4):
        await watched.page.clock.run_for(int(PAGE_ASKS_SECONDS * 1000))
        await watched.answered()
        assert site.answered == ["/snapshot.json"] * asked


@pytest.mark.wide
async def test_only_the_parts_whose_data_changed_are_drawn_anew(browser: Browser) -> None:
    site, watched = await _opened(browser, rich(live=True), charts=True)
    await _pass(watched, 2)
    await watched.page.evaluate("""() => {
        window.drawn = 0;
        const observer = new MutationObserver((changes) => { window.drawn += changes.length; });
        for (const plot of document.querySelectorAll('.plot')) {
            observer.observe(plot, {childList: true, subtree: true, attributes: true});
        }
    }""")
    site.page_state = replace(site.page_state, dead_letters=site.page_state.dead_letters[:1])
    await _pass(watched, 2)
    await watched.until("() => document.querySelectorAll('#letters-rows tr').length === 1")
    assert await watched.page.evaluate("window.drawn") == 0
    site.page_state = replace(site.page_state, audits=site.page_state.audits[:-1])
    await _pass(watched, 2)
    await watched.until("() => window.drawn > 0")


async def test_the_reading_of_a_long_log_shows_how_far_it_is(browser: Browser) -> None:
    site, watched = await _opened(browser, rich(live=True))
    assert "94 %, 412.3 MB of 436.2 MB" in await watched.text("#reading")
    done = replace(site.page_state.source, bytes_read=site.page_state.source.bytes_total)
    site.page_state = replace(site.page_state, source=done, made_at=NOW + 1)
    await _pass(watched, 2)
    await watched.page.locator("#reading").wait_for(state="hidden")


async def test_findings_show_what_was_found_what_should_be_and_what_came_of_it(browser: Browser) -> None:
    _, watched = await _opened(browser, rich())
    rows = [await row.inner_text() for row in await watched.page.locator("#findings-rows tr").all()]
    texts = [" ".join(row.replace("\n", " ").split()) for row in rows]
    assert (
        "mismatched not repaired research_context ≠ differs: Kelp forests of the Skagerrak Kelp" in texts[0]
    )
    assert "missing" in texts[2]
    assert "differs: no row Baltic amber" in texts[2]
    repaired = next(text for text in texts if "c-11c0de" in text)
    assert "repaired research_context" in repaired
    assert repaired.endswith("= as it should be: Pollen cores, Lake Ohrid")


async def test_figures_are_written_for_people(browser: Browser) -> None:
    _, watched = await _opened(browser, rich())
    assert await watched.text("#tile-pending") == "live 4 repair 0 backfill 100,000+"
    assert await watched.text("#tile-audit") == LAST_AUDIT
    assert await watched.page.locator("#backfill-bar").get_attribute("value") == "771904"
    assert "64 %" in await watched.text("#backfill-newest")
    assert "until 17:07:45" in await watched.text("#backfill-figures")
    assert (
        await watched.page.locator("#letters-rows time").first.get_attribute("datetime")
        == "2025-11-24T15:48:00.000Z"
    )
    assert "16:48:00" in await watched.text("#letters-rows tr:first-child")


async def test_the_phase_is_shown_with_what_going_back_would_lose(browser: Browser) -> None:
    _, watched = await _opened(browser, rich())
    assert await watched.text("#cutover-phase") == "3. Shadow reads"
    assert (await watched.text("#cutover-since")).endswith("fell back")
    assert await watched.text("#cutover-counted") == "Going back would lose, as counted 50 s before:"
    losses = "further links 12 rows with tags 1,204 rows with mappings 0 contexts of their own 3"
    assert await watched.text("#cutover-losses") == f"{losses} collections without a home 0"
    cutover = rich().cutover
    assert cutover is not None
    _, watched = await _opened(browser, replace(rich(), cutover=replace(cutover, lost=None, fell_back=False)))
    assert not await watched.page.locator("#cutover-lost").is_visible()
    watched.assert_quiet()


async def test_an_audit_that_failed_is_a_gap_and_its_tile_dashes(browser: Browser) -> None:
    page_state = rich()
    failed = replace(page_state.audits[-1], verdict=None, error="cut off", compared=None, missing=None)
    failed = replace(failed, mismatched=None, orphaned=None, pending=None, repaired=None)
    _, watched = await _opened(browser, replace(page_state, audits=[*page_state.audits[:-1], failed]))
    dashes = " ".join(f"{name} \N{EN DASH}" for name in LAST_AUDIT.split()[::2])
    assert await watched.text("#tile-audit") == dashes
    assert "failed" in await watched.text("#tile-audit-when")
    watched.assert_quiet()


async def test_an_empty_log_says_what_to_do(browser: Browser) -> None:
    _, watched = await _opened(browser, empty())
    page = await watched.text("main")
    for command in ("worker.audit", "worker.backfill --wait", "worker"):
        assert f"python -m {command}" in page
    assert await watched.page.locator("table:visible").count() == 0
    assert [await watched.text(f"#tile-oldest > div:nth-child({n + 1})") for n in range(len(LANES))] == [
        f"{lane} \N{EN DASH}" for lane in LANES
    ]
    watched.assert_quiet()


@pytest_asyncio.fixture(loop_scope="session")
async def offline(browser: Browser) -> BrowserContext:
    return await browser.new_context(**LIGHT, offline=True)


async def test_a_page_written_as_a_file_shows_the_same_and_asks_for_nothing(
    offline: BrowserContext, browser: Browser, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    write_page(file, self_contained(rich()))
    watched = await watch(offline)
    await watched.page.goto(file.as_uri())
    _, online = await _opened(browser, rich(), charts=True)
    for part in ("#verdict", ".tiles", "#letters-rows", "#findings-rows", "#workers-rows", "#lanes-rows"):
        assert await watched.text(part) == await online.text(part)
    await watched.page.locator(".plot svg.main-svg").nth(3).wait_for(state="attached")
    assert watched.requested == [file.as_uri()]
    watched.assert_quiet()


async def test_where_a_browser_cannot_unpack_the_charts_the_file_shows_all_else(
    offline: BrowserContext, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    write_page(file, self_contained(rich()))
    await offline.add_init_script("delete globalThis.DecompressionStream")
    page = await offline.new_page()
    async with page.expect_event("pageerror"):
        await page.goto(file.as_uri())
    assert await page.locator("#verdict-title").inner_text() != "Unknown"
    assert await page.locator("#letters-rows tr").count() > 0
    said = "getComputedStyle(document.querySelector('#lag .plot'), '::before').content"
    assert "browser of 2023" in await page.evaluate(said)
