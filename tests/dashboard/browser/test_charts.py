"""The charts: one time axis, marks at the same place in all, and no line that hides another."""

from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.dashboard.browser.page_states import MINUTE, NOW, rich
from tests.dashboard.browser.site import ADDRESS, serve
from tests.dashboard.browser.watching import LIGHT, watch
from worker.dashboard.page_state import Mark, PageState

pytestmark = pytest.mark.asyncio(loop_scope="session")  # in which the browser lives

CHARTS = ("agreement", "lag", "throughput", "waiting")
# A chart as plotly was given it, with where its plot begins and ends in pixels from the figure's left edge.
READ = """id => {
    const plot = document.querySelector(`#${id} .plot`);
    const {l, w} = plot._fullLayout._size;
    return {
        span: [l, l + w],
        range: plot.layout.xaxis.range,
        names: plot.data.map(({name}) => name),
        lines: plot.data.map(({line, x, y}) => ({width: line?.width, shape: line?.shape, x, y})),
        shapes: plot.layout.shapes.map(({type, x0, x1, yref}) => [type, x0, x1, yref]),
        texts: plot.layout.annotations.map(({text}) => text),
        legend: [...document.querySelectorAll(`#${id} .legend li`)].map((item) => item.textContent),
    };
}"""


async def _opened(browser: Browser, page_state: PageState, range_: str = "1h") -> Page:
    context = await browser.new_context(**LIGHT)
    await serve(context, page_state)
    page = (await watch(context)).page
    await page.goto(f"{ADDRESS}#range={range_}")
    await page.locator(".plot svg.main-svg").nth(3).wait_for(state="attached")
    return page


async def _charts(page: Page) -> dict[str, Any]:
    return {chart: await page.evaluate(READ, chart) for chart in CHARTS}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def charts(one_browser: Browser) -> dict[str, Any]:
    """The charts of the day with everything in it, as plotly was given them."""
    page = await _opened(one_browser, rich())
    charts = await _charts(page)
    await page.context.close()
    return charts


async def test_a_moment_has_the_same_place_in_each_chart(charts: dict[str, Any]) -> None:
    assert len({tuple(chart["span"]) for chart in charts.values()}) == 1
    assert len({tuple(chart["range"]) for chart in charts.values()}) == 1


async def test_pointing_at_a_moment_shows_it_in_each_chart(browser: Browser) -> None:
    page = await _opened(browser, rich())
    plot = page.locator("#waiting .plot")
    await plot.scroll_into_view_if_needed()
    await plot.hover(position={"x": 300, "y": 100})
    await page.locator(".charts.crossed").wait_for()
    place = "getComputedStyle(document.querySelector('#lag .plot'), '::after').left"
    assert abs(float(str(await page.evaluate(place)).removesuffix("px")) - 300) < 10
    await page.mouse.move(0, 0)
    await page.locator(".charts:not(.crossed)").wait_for()


async def test_restarts_pauses_rollbacks_and_blind_spells_are_marked_in_each_chart_and_listed(
    browser: Browser,
) -> None:
    page = await _opened(browser, rich())
    for chart in (await _charts(page)).values():
        lines = [shape for shape in chart["shapes"] if shape[0] == "line" and shape[3] == "paper"]
        grounds = [shape for shape in chart["shapes"] if shape[0] == "rect"]
        assert len(lines) == 6
        assert ["rect", "2025-11-24T16:27:00.000", "2025-11-24T16:30:00.000", "paper"] in grounds
        assert "rolled back 1,204 rows +3" in chart["texts"]
    await page.locator("#marks summary").click()
    listed = [" ".join(text.split()) for text in await page.locator("#marks-list li").all_inner_texts()]
    assert listed == [
        "16:55:00 backfill 4 resumed",
        "16:54:00 backfill 4 paused",
        "16:46:00 backfill 4 started",
        "16:30:00 worker started sync-1:4711",
        "16:27:00 no heartbeat 3 min",
        "16:27:00 worker stopped sync-1:4711",
        "16:20:00 rolled back 1,204 rows",
    ]


async def test_where_there_is_room_each_mark_has_its_name(browser: Browser) -> None:
    marks = [Mark("worker_started", NOW - minutes * MINUTE, subject="w") for minutes in (50, 30, 10, 9)]
    charts = await _charts(await _opened(browser, replace(rich(), marks=marks)))
    assert charts["lag"]["texts"] == ["worker started", "worker started", "worker started +1"]


async def test_turns_of_the_phase_are_named_and_a_fall_back_is_told_apart(browser: Browser) -> None:
    marks = [
        Mark("phase_turned", NOW - 50 * MINUTE, number=4),
        Mark("reads_fell_back", NOW - 20 * MINUTE, number=3),
    ]
    page = await _opened(browser, replace(rich(), marks=marks))
    assert (await _charts(page))["lag"]["texts"] == ["phase 4", "reads fell back"]


async def test_a_time_without_a_worker_is_a_gap_in_what_a_worker_says(charts: dict[str, Any]) -> None:
    for line in (*charts["lag"]["lines"], *charts["waiting"]["lines"]):
        within = [
            y
            for x, y in zip(line["x"], line["y"], strict=True)
            if "2025-11-24T16:27:31" < x < "2025-11-24T16:29:59"
        ]
        assert set(within) == {None}


async def test_a_line_above_another_is_thinner_and_counts_are_steps(charts: dict[str, Any]) -> None:
    for name in ("lag", "waiting"):
        widths = [line["width"] for line in charts[name]["lines"] if line["width"] != 2.5]
        assert widths[: len(set(widths))] == sorted(set(widths), reverse=True)
    for line in charts["waiting"]["lines"]:
        assert line["shape"] == "hv"


async def test_the_legend_names_what_occurred_and_of_how_many_events_a_percentile_is(
    browser: Browser,
) -> None:
    page_state = rich()
    page_state.audits = [
        replace(audit, orphaned=0, mismatched=0, verdict="drift") for audit in page_state.audits
    ]
    charts = await _charts(await _opened(browser, page_state))
    assert charts["agreement"]["legend"] == ["drift", "missing", "pending"]
    assert "live repair" not in charts["throughput"]["legend"]
    bulk, live = (sum(page_state.series["1h"].lag_count[lane]) for lane in ("backfill", "live"))
    assert charts["lag"]["legend"] == [
        "live p50", "live p95", f"live p99n = {live:,}", f"backfill p99n = {bulk:,}",
    ]  # fmt: skip


async def test_the_bound_of_lateness_has_a_name_where_the_axis_reaches_it(
    charts: dict[str, Any], browser: Browser
) -> None:
    page_state = rich()
    page_state.series["1h"].oldest_seconds["live"][-1] = 90.0
    late = await _charts(await _opened(browser, page_state))
    bound = "late from 1 min on"
    assert [bound in each["waiting"]["texts"] for each in (charts, late)] == [False, True]
