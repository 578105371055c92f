"""A turn as a page that somebody signs: in a real browser, as axe sees it, and with nothing to load."""

from pathlib import Path

import asyncpg
import pytest
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import Browser
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.phase import turn
from shared.phase.gates import Limits
from tests.dashboard.browser.conftest import chromium, own_browser
from tests.dashboard.browser.watching import DARK, LIGHT, view, watch
from tests.forked import run
from tests.legacy_rows import seed
from tests.log_lines import hold_printed
from tests.phase.meeting import COMPARE, COUNT_LOSSES, meet_gates
from tests.processes import HANG_SECONDS, environment
from tests.status.scenes import audited

__all__ = ["chromium", "own_browser"]

HOSTILE = "<img src=x onerror=alert(1)>\u202e & \"'</style><script>alert(2)</script>"
TO_SHADOW = "UPDATE migration_phase SET phase = 'shadow_reads', epoch = 3"


def report(url: str, page: Path, *words: str) -> tuple[int, str, str]:
    done = run(
        ["-m", "worker.phase", "report", "--html", str(page), *words],
        environment(url, ""),
        timeout=HANG_SECONDS,
    )
    hold_printed(done.stderr)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
async def test_a_turn_is_a_page_that_says_all_loads_nothing_and_obeys_nothing(
    sql: asyncpg.Connection, engine: AsyncEngine, database_url: str, tmp_path: Path, own_browser: Browser
) -> None:
    await seed(sql)
    await meet_gates(engine, sql)
    await sql.execute(TO_SHADOW)
    await sql.execute(COMPARE)
    await sql.execute(COUNT_LOSSES)
    await sql.execute("DELETE FROM worker_processes")
    async with engine.begin() as connection:
        await turn.advance(connection, actor=HOSTILE, limits=Limits(), forced=True, reason=HOSTILE)
    await audited(engine)
    async with engine.begin() as connection:
        await turn.back(connection, actor="bob")
    file = tmp_path / "turn.html"
    assert report(database_url, file, "--epoch", "4") == (
        0, f"Turn 4, to Reads moved, is written to {file}.\n", "",
    )  # fmt: skip

    for look in (LIGHT, DARK, view(320, color_scheme="light")):
        context = await own_browser.new_context(**look)
        watched = await watch(context)
        await watched.page.goto(file.as_uri())
        found = await Axe().run(watched.page)
        assert found.violations_count == 0, found.generate_report()
        assert (
            await watched.page.evaluate("document.documentElement.scrollWidth") == look["viewport"]["width"]
        )
        said = await watched.text("main")
        assert await watched.page.locator("img, script, b").count() == 0
        assert watched.hosts() == {""}
        watched.assert_quiet()
        await context.close()
    assert said.startswith("Turn 4: Advanced to 4. Reads moved Forced past 1 gate that was not met.")
    assert said.count("<img src=x onerror=alert(1)>\N{REPLACEMENT CHARACTER} & \"'</style>") == 2
    assert "A worker runs 0 alive at the turn at least 1 not met" in said
    assert "1,000 lists: 1,000 agree" in said
    assert "0.50 ms from collections and 0.75 ms from project_collections" in said
    assert "UTC, after the turn" in said
    assert "Further links 12 Rows with tags 3" in said
    assert "turned back to Shadow reads, by bob" in said


@pytest.mark.parametrize(
    ("words", "said"), [((), "never turned"), (("--epoch", "7"), "There is no turn 7.")], ids=["none", "7"]
)
async def test_what_was_never_turned_has_no_page(
    database_url: str, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    code, out, errors = report(database_url, tmp_path / "page", *words)
    assert (code, out) == (1, "")
    assert said in errors
    assert not (tmp_path / "page").exists()


async def test_the_last_turn_is_reported_where_none_is_named_and_a_file_that_cannot_be_is_named(
    database_url: str, engine: AsyncEngine, tmp_path: Path
) -> None:
    async with engine.begin() as connection:
        await turn.advance(connection, actor="ann", limits=Limits(), forced=True, reason="a rehearsal")
    code, out, _ = report(database_url, tmp_path / "page", "--json")
    assert (code, out) == (0, f'{{"epoch": 1, "phase": "outbox", "file": "{tmp_path / "page"}"}}\n')
    assert "It was not counted by then." in (tmp_path / "page").read_text()
    code, _, errors = report(database_url, tmp_path)
    assert (code, errors) == (1, f"{tmp_path} cannot be written: Is a directory.\n")
