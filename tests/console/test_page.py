"""The console by keyboard, as axe sees it, and as a page of another site would use it."""

import os
from pathlib import Path

import asyncpg
import pytest
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import Browser, Page, Route
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.verdict import commands
from tests.console.desk import TOKEN, Desk
from tests.dashboard.browser.watching import LIGHT, watch
from tests.draining import drain
from tests.legacy_rows import set_collection
from tests.processes import running_worker
from tests.worker.events import append_raw

pytestmark = pytest.mark.slow

PICTURES = os.environ.get("PICTURES")
OLD_ROWS = """
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    SELECT 'old-' || n, 'p' || 1 + n % 3, 'name', 'text ' || n, 'owner', true FROM generate_series(1, 300) n
"""

REPLAYED = """
    UPDATE outbox_dead_letters SET state = 'replayed', closed_at = now(), replayed_as = $2 WHERE id = $1
"""
# What a page of another site can try: with the token, without, and by a form.
ATTACK = """async ([target, token]) => {
    const headers = {'X-Admin-Token': token, 'X-Actor': 'Mallory'};
    for (const path of ['audit', 'repair', 'backfill', 'phase/advance', 'phase/back']) {
        await fetch(`${target}/admin/${path}`, {method: 'POST', headers}).catch(() => {});
        await fetch(`${target}/admin/${path}`, {method: 'POST', mode: 'no-cors'}).catch(() => {});
    }
    const form = document.createElement('form');
    form.method = 'post';
    form.action = `${target}/admin/audit`;
    document.body.append(form);
    form.submit();
}"""
ACTS = "SELECT actor, act FROM operator_acts ORDER BY acted_at"


async def die(engine: AsyncEngine, sql: asyncpg.Connection, *collections: str) -> list[int]:
    """Let an event of each collection die of the same cause; return the letters' ids."""
    for name in collections:
        await set_collection(engine, name, "text")
    await drain(engine)
    ids = [await append_raw(sql, name, created_at="tomorrow-ish") for name in collections]
    await drain(engine)
    return ids


async def picture(page: Page, name: str) -> None:
    if PICTURES:
        await page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


async def assert_accessible(page: Page) -> None:
    found = await Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert len(found.response["passes"]) > 15


async def test_axe_finds_no_violation_whatever_is_open_in_light_dark_or_narrow(
    desk: Desk, sql: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await sql.execute(OLD_ROWS)
    letters = await die(engine, sql, "one", "two")
    await sql.execute(REPLAYED, *letters)
    await sql.execute("UPDATE outbox_dead_letters SET aggregate_id = 'one'")
    page = desk.watched.page
    await assert_accessible(page)
    await picture(page, "form")
    await desk.enter()
    await desk.act("Start… a backfill", "Start")
    await desk.act("Pause… the backfill", "Pause")
    await desk.until_state("backfill_paused")
    await desk.until_says("#record", "backfill.pause")
    await desk.reach("Collection id")
    await desk.type("one")
    await desk.press("Enter")
    await desk.until_says("#found", "events that wait")
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        await assert_accessible(page)
        await picture(page, scheme)
    await page.set_viewport_size({"width": 320, "height": 900})
    await assert_accessible(page)
    await picture(page, "narrow")
    assert await page.evaluate("document.documentElement.scrollWidth") == 320
    await desk.reach("Discard… dead letter 4")
    await desk.press("Enter")
    await assert_accessible(page)
    await picture(page, "dialog")
    await desk.press("Escape")
    assert await sql.fetchval("SELECT count(*) FROM outbox_dead_letters WHERE state = 'dead'") == 1
    desk.watched.assert_quiet()
    assert desk.watched.hosts() == {desk.address.removeprefix("http://")}


async def test_with_the_keyboard_alone_an_operator_gets_from_bare_tables_and_from_drift_to_in_sync(
    desk: Desk, env: dict[str, str], sql: asyncpg.Connection
) -> None:
    await sql.execute(OLD_ROWS)
    async with running_worker(env):
        await desk.enter()
        await desk.until_state("not_backfilled")
        done = await desk.act("Start… the next step", "Start")
        assert done == "Backfill 1 is started: workers look at 300 collections."
        await desk.until_says("#backfill-text", "finished")
        await desk.until_says("#figures", "0 wait")
        assert "is requested" in await desk.act("Audit now…", "Audit")
        await desk.until_state("in_sync")
        await desk.until_says("#steps", commands.PHASE)
        await desk.reach("Shown below")
        await desk.press("Enter")
        assert await desk.watched.page.evaluate("document.activeElement.id") == "cutover"

        await sql.execute("UPDATE project_collections SET research_context = 'by hand' WHERE id % 2 = 0")
        await desk.act("Audit now…", "Audit")
        await desk.until_state("drift")
        await picture(desk.watched.page, "drift")
        done = await desk.act("Repair… the next step", "Repair")
        assert done.endswith("it repairs what it finds.")
        await desk.until_state("in_sync")  # an audit follows a repair by itself
        await picture(desk.watched.page, "in-sync")
    assert {actor for actor, _ in await sql.fetch(ACTS)} == {"Zoë 山田"}
    desk.watched.assert_quiet()


async def test_a_group_of_letters_is_replayed_at_once_and_twice_is_harmless(
    desk: Desk, sql: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await die(engine, sql, "one", "two", "three")
    await desk.enter()
    await desk.until_says("#letters", "3 letters · 22007 · collection.updated")
    await desk.watched.page.locator("#letters button").first.click()
    await desk.watched.page.locator("#ask-yes").dblclick()
    await desk.until_says("#done", "3 dead letters are replayed.")
    await desk.until_says("#record", "letters.replay")
    await desk.watched.page.locator("#letters-none").wait_for()
    assert [act for _, act in await sql.fetch(ACTS)] == ["letters.replay"]
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 3
    desk.watched.assert_quiet()


async def test_what_stands_in_the_data_is_shown_and_never_obeyed(
    desk: Desk, sql: asyncpg.Connection, engine: AsyncEngine
) -> None:
    hostile = "<img src=x onerror=alert(1)>\u202e\x07"
    await set_collection(engine, hostile[:28], hostile)
    await sql.execute("INSERT INTO worker_processes (name) VALUES ($1)", hostile)
    await desk.enter(name="<b>Zoë</b>")
    await desk.act("Audit now…", "Audit")
    await desk.reach("Collection id")
    await desk.type(hostile[:28])
    await desk.press("Enter")
    await desk.until_says("#found", "⟨U+202E⟩")
    await desk.until_says("#record", "<b>Zoë</b>")
    await desk.until_says("#figures", "<img src=x onerror=alert(1)>")
    assert await desk.watched.page.locator("img, b").count() == 0
    desk.watched.assert_quiet()


async def test_the_token_stays_in_the_tab_and_a_wrong_one_shows_nothing(desk: Desk) -> None:
    page = desk.watched.page
    await desk.enter(token="wrong")
    assert await desk.watched.text("#refused") == "Missing or wrong admin token"
    assert await page.locator("#desk").is_hidden()
    await desk.enter()
    await desk.until_state("not_backfilled")
    assert await page.evaluate("[document.cookie, localStorage.length, location.href]") == [
        "",
        0,
        f"{desk.address}/admin/console",
    ]
    await page.reload()
    await desk.until_state("not_backfilled")
    await desk.reach("Leave")
    await desk.press("Enter")
    assert await page.locator("#desk").is_hidden()
    assert await page.evaluate("sessionStorage.length") == 0
    assert "revision" not in str(await page.content())


async def test_a_page_of_another_site_does_nothing(
    desk: Desk, own_browser: Browser, sql: asyncpg.Connection
) -> None:
    await sql.execute("UPDATE migration_phase SET phase = 'verified'")
    foreign = desk.address.replace("127.0.0.1", "localhost")
    context = await own_browser.new_context(**LIGHT)
    watched = await watch(context)

    async def serve(route: Route) -> None:
        await route.fulfill(body="<!doctype html><title>Free</title>", content_type="text/html")

    await context.route(f"{foreign}/prizes", serve)
    await watched.page.goto(f"{foreign}/prizes")
    async with watched.page.expect_navigation():
        await watched.page.evaluate(ATTACK, [desk.address, TOKEN])
    assert "Missing or wrong admin token" in await watched.text("body")
    assert await sql.fetchval("SELECT count(*) FROM audit_runs") == 0
    assert await sql.fetchval("SELECT count(*) FROM backfill_runs") == 0
    assert await sql.fetchval("SELECT count(*) FROM phase_turns") == 0
    assert await sql.fetch(ACTS) == []


async def test_when_the_server_goes_away_the_page_says_that_what_it_shows_is_old(desk: Desk) -> None:
    await desk.enter()
    await desk.until_state("not_backfilled")
    assert await desk.watched.page.locator("#notice").is_hidden()
    desk.api.kill()
    await desk.until_says("#notice", "The server does not answer: what you see is old.")
    await desk.until_says("#fresh", "s old")
