"""The section of the cutover by keyboard: gates, comparisons, losses, turns, and what its dialog asks."""

from typing import Literal

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.phase.phases import TITLES, Phase
from shared.verdict import commands
from tests.console.desk import Desk
from tests.console.test_page import assert_accessible, picture
from tests.phase.meeting import COMPARE, COUNT_LOSSES, FIND, LONG_AGO, PHASE, meet_gates

pytestmark = pytest.mark.slow

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
TO = "UPDATE migration_phase SET phase = $1"
FELL_BACK = """
    INSERT INTO phase_turns (epoch, from_phase, to_phase, kind, actor, reason, forced, gates)
    VALUES (0, 'reads_moved', 'shadow_reads', 'fall_back', 'collection-sync api', $1, false, '[]')
"""
TURNS = "SELECT from_phase, to_phase, actor, reason, forced FROM phase_turns ORDER BY epoch"


async def dialog_says(desk: Desk) -> str:
    return await desk.watched.text("#ask")


async def test_axe_finds_no_violation_in_the_cutover_nor_in_its_dialog(
    desk: Desk, sql: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await meet_gates(engine, sql)
    await sql.execute(TO, Phase.SHADOW_READS)
    for statement in (LONG_AGO, COMPARE, COUNT_LOSSES):
        await sql.execute(statement)
    await sql.execute(FIND, "p1", "c2")
    await sql.execute("UPDATE shadow_counts SET mismatched = 1, dropped = 4")
    await sql.execute(FELL_BACK, "Collection c2 of project p1 is mismatched.")
    await desk.enter()
    await desk.until_says("#gates-title", "Gates to Reads moved: 1 of 6 not met")
    page = desk.watched.page
    await desk.reach("Advance… the phase")
    for scheme in SCHEMES:
        await page.emulate_media(color_scheme=scheme)
        await assert_accessible(page)
        await picture(page, f"cutover-{scheme}")
    await page.set_viewport_size({"width": 320, "height": 900})
    await assert_accessible(page)
    await picture(page, "cutover-narrow")
    assert await page.evaluate("document.documentElement.scrollWidth") == 320
    await desk.press("Enter")
    for scheme in SCHEMES:
        await page.emulate_media(color_scheme=scheme)
        await assert_accessible(page)
        await picture(page, f"cutover-dialog-{scheme}")
    assert await page.evaluate("document.documentElement.scrollWidth") == 320
    await desk.press("Escape")
    assert tuple(await sql.fetchrow(PHASE)) == ("shadow_reads", 0)
    desk.watched.assert_quiet()


async def test_each_gate_comparison_finding_loss_and_turn_is_shown(
    desk: Desk, sql: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await meet_gates(engine, sql)
    await sql.execute(TO, Phase.SHADOW_READS)
    for statement in (LONG_AGO, COMPARE, COUNT_LOSSES):
        await sql.execute(statement)
    hostile = "<img src=x onerror=alert(1)>\u202e"
    await sql.execute(FIND, "p1", hostile)
    await sql.execute(
        "UPDATE shadow_counts SET mismatched = 1, pending = 20, lettered = 3, dropped = 4, failed = 5;"
        "UPDATE going_back_losses SET counted_at = counted_at - interval '3 hours'"
    )
    await sql.execute(FELL_BACK, hostile)
    await desk.enter()
    await desk.until_says("#phases", "Shadow reads")
    phases = desk.watched.page.locator("#phases li")
    assert [text.strip() for text in await phases.all_inner_texts()][-1].endswith(TITLES[Phase.READS_MOVED])
    assert await desk.watched.text("#phases [aria-current=step]") == "3 Shadow reads"
    await desk.until_says("#cutover-text", "Lists are read from collections.")
    for line in (
        "Both tables are equal, over all pairs met in sync, 3 compared",
        "Comparisons of lists found no difference not met 1,024 lists, 1 mismatch",
        "must be: 1,000 lists or more, the last within 24 hours, and 0 mismatches",
    ):
        await desk.until_says("#gates", line)
    said = (await desk.watched.text("#compared")).lower()
    for line in (
        "compared 1,024 lists, the last",
        "match 1,000 mismatch 1 events wait 20 a dead letter is open 3 dropped, failed 4, 5",
        "from collections 0.49 ms each from project_collections 0.73 ms each",
    ):
        assert line in said
    await desk.until_says("#differences", "⟨U+202E⟩ in project p1")
    await desk.until_says("#losses-text", "Counted 3 hours ago")
    await desk.until_says("#losses", "further links 12 rows with tags 3")
    await desk.until_says("#turns", "fell back by itself Reads moved → Shadow reads Reason: <img")
    assert await desk.watched.page.locator("img").count() == 0
    desk.watched.assert_quiet()


async def test_with_the_keyboard_alone_the_reads_move_and_come_back(
    desk: Desk, sql: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await meet_gates(engine, sql)
    await sql.execute(COUNT_LOSSES)
    await desk.enter()
    for title in ("Outbox", "Backfilled and verified", "Shadow reads"):
        await sql.execute(LONG_AGO)
        await desk.until_says("#gates-title", f"Gates to {title}: all met")
        assert f"to {title}." in await desk.act("Advance… the next step", "Advance")
    await sql.execute(COMPARE)
    await desk.until_says("#gates-title", "Gates to Reads moved: all met")
    await desk.reach("Advance… the phase")
    await desk.press("Enter")
    said = await dialog_says(desk)
    assert "Lists are read from project_collections from then on." in said
    assert "Not met" not in said
    await desk.reach("Go back by itself when a comparison finds a mismatch")
    await desk.press("Space")
    await desk.reach("Reason, if there is one to record")
    await desk.type("All is quiet.")
    await desk.press("Enter")
    await desk.until_says("#done", "Lists are read from project_collections.")
    await desk.until_says("#cutover-text", "Moved reads do not go back by themselves.")
    await desk.until_says("#gates-none", "None: this is the last phase.")
    assert await sql.fetchval("SELECT falls_back FROM migration_phase") is False

    await desk.reach("Go back… a phase")
    await desk.press("Enter")
    assert "they lose further links: 12, rows with tags: 3, contexts of their own: 1;" in await dialog_says(
        desk
    )
    await desk.press("Escape")
    done = await desk.act("Go back… a phase", "Go back")
    assert done == "Went back from Reads moved to Shadow reads. Lists are read from collections."
    await desk.until_says("#record", "phase.back")
    await desk.until_says("#turns", "went back Reads moved → Shadow reads")
    turns = [tuple(row) for row in await sql.fetch(TURNS)][-2:]
    assert turns == [
        ("shadow_reads", "reads_moved", "Zoë 山田", "All is quiet.", False),
        ("reads_moved", "shadow_reads", "Zoë 山田", None, False),
    ]
    desk.watched.assert_quiet()


async def test_unmet_gates_are_named_and_forced_with_a_reason_alone(
    desk: Desk, sql: asyncpg.Connection
) -> None:
    await desk.enter()
    await desk.until_says("#gates-title", "Gates to Outbox: 2 of 4 not met")
    await desk.until_says("#cutover-steps", commands.CAPTURE)
    await desk.reach("Advance… the phase")
    await desk.press("Enter")
    assert "Not met: A worker runs: 0 alive Nobody writes past the outbox:" in await dialog_says(desk)
    page = desk.watched.page
    await desk.reach("Advance")
    await desk.press("Enter")  # neither the box nor the reason: it stays open
    await desk.reach("Advance all the same")
    await desk.press("Space")
    await desk.reach("Reason, which is recorded")
    await desk.type("   ")
    await desk.press("Enter")  # blanks are no reason
    assert await page.locator("#ask").is_visible()
    assert tuple(await sql.fetchrow(PHASE)) == ("legacy_only", 0)
    await desk.type("rehearsed")
    await desk.press("Enter")
    await desk.until_says("#done", "Advanced from Legacy only to Outbox. Forced: 2 gates were not met.")
    await desk.until_says("#turns", "Forced, not met: A worker runs; Nobody writes past the outbox")
    assert [tuple(row) for row in await sql.fetch(TURNS)] == [
        ("legacy_only", "outbox", "Zoë 山田", "rehearsed", True)
    ]
    desk.watched.assert_quiet()


async def test_a_phase_that_was_turned_while_the_dialog_was_open_is_not_turned_again(
    desk: Desk, sql: asyncpg.Connection
) -> None:
    await sql.execute(TO, Phase.VERIFIED)
    await desk.enter()
    await desk.until_says("#phases", "Outbox")
    await desk.reach("Go back… a phase")
    await desk.press("Enter")
    await sql.execute("UPDATE migration_phase SET phase = 'shadow_reads', epoch = 1")
    await desk.until_says("#gates-title", "Gates to Reads moved")
    await desk.reach("Go back")
    await desk.press("Enter")
    await desk.until_says("#done", "Not done: The phase was turned since you looked: it is Shadow reads now.")
    assert tuple(await sql.fetchrow(PHASE)) == ("shadow_reads", 1)
