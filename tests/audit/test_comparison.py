"""Mutations of the verifier's input: every way in which a pair may differ, and what is not its concern."""

from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.audit.pairs import CREATED, UPDATED, audited, found, put_legacy, put_pair, put_target

MICROSECOND = timedelta(microseconds=1)
TEXTS = {
    "NULL and empty": (None, ""),
    "empty and NULL": ("", None),
    "NULL and its name": (None, "NULL"),
    "its name and NULL": ("NULL", None),
    "NULL and a text": (None, "text"),
    "upper case": ("text", "Text"),
    "a trailing blank": ("text", "text "),
    "a trailing newline": ("text", "text\n"),
    "one character less": ("text", "tex"),
    "one character more": ("text", "text."),
    "another character": ("text", "tExt"),
    "a composed and a decomposed letter": ("caf\u00e9", "cafe\u0301"),
    "a hyphen and a soft hyphen": ("a-b", "a\u00adb"),
    "a zero width space": ("ab", "a\u200bb"),
    "Turkish i": ("i", "\u0131"),
    "beyond the basic plane": ("\U0001f600", "\U0001f601"),
    "the end of a long text": ("x" * 999 + "y", "x" * 999 + "z"),
}
TIMES = {
    "a microsecond more": UPDATED + MICROSECOND,
    "a microsecond less": UPDATED - MICROSECOND,
    "NULL": None,
    "an hour": UPDATED + timedelta(hours=1),
}


async def test_every_different_text_is_found(engine: AsyncEngine, seeded: asyncpg.Connection) -> None:
    for name, (legacy, target) in TEXTS.items():
        await put_legacy(seeded, f"alike: {name}", description=legacy)
        await put_target(seeded, f"alike: {name}", research_context=legacy)
        await put_legacy(seeded, name, description=legacy)
        await put_target(seeded, name, research_context=target)

    run = await audited(engine)

    assert await found(seeded) == dict.fromkeys(TEXTS, "mismatched")
    assert (run.verdict, run.mismatched, run.compared) == ("drift", len(TEXTS), 2 * len(TEXTS))


@pytest.mark.parametrize("column", ["created_at", "updated_at"])
async def test_every_different_time_is_found_on_either_side(
    column: str, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    same = {"created_at": UPDATED, "updated_at": UPDATED}
    for name, value in TIMES.items():
        other = same | {column: value}
        for side, legacy, target in (("t", same, other), ("l", other, same), ("alike", other, other)):
            await put_legacy(seeded, f"{side}: {name}", **legacy)
            await put_target(seeded, f"{side}: {name}", **target)

    await audited(engine)

    expected = [f"{side}: {name}" for name in TIMES for side in ("t", "l")]
    assert await found(seeded) == dict.fromkeys(expected, "mismatched")


async def test_values_exchanged_between_neighbours_are_found(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    for this, that in (("a", "b"), ("b", "a")):
        await put_legacy(seeded, this, description=this)
        await put_target(seeded, this, research_context=that)

    await audited(engine)

    assert await found(seeded) == {"a": "mismatched", "b": "mismatched"}


async def test_values_exchanged_between_columns_are_found(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_pair(seeded, "a", created_at=UPDATED, updated_at=CREATED)

    await audited(engine)

    assert await found(seeded) == {"a": "mismatched"}


async def test_a_missing_and_an_extra_row_that_cancel_in_a_count_are_found(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_legacy(seeded, "missing")
    await put_legacy(seeded, "deleted", is_active=False)
    await put_target(seeded, "deleted")

    run = await audited(engine)

    assert await found(seeded) == {"missing": "missing", "deleted": "orphaned"}
    assert run.active_collections == run.home_rows == 1
    assert (run.missing, run.mismatched, run.orphaned, run.pending) == (1, 0, 1, 0)


async def test_a_home_row_in_the_wrong_project_is_a_missing_one(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_legacy(seeded, "moved", project_id="p2")
    await put_target(seeded, "moved", project_id="p1")

    await audited(engine)

    assert await found(seeded) == {"moved": "missing"}


@pytest.mark.parametrize("is_active", [False, None])
async def test_a_collection_that_is_not_active_must_have_no_home_row(
    is_active: bool | None,  # noqa: FBT001 - a parameter of the test
    engine: AsyncEngine,
    seeded: asyncpg.Connection,
) -> None:
    await put_legacy(seeded, "with row", is_active=is_active)
    await put_target(seeded, "with row")
    await put_legacy(seeded, "without row", is_active=is_active)

    run = await audited(engine)

    assert await found(seeded) == {"with row": "orphaned"}
    assert (run.active_collections, run.compared) == (0, 2)


async def test_a_row_of_no_collection_at_all_is_an_orphan(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_pair(seeded, "in sync")
    await seeded.execute("SET session_replication_role = replica")  # no foreign key, as a careless restore
    await put_target(seeded, "nowhere", project_id="p3")

    run = await audited(engine, slices=4)

    assert await found(seeded) == {"nowhere": "orphaned"}
    assert (run.compared, run.orphaned) == (1, 1)


async def test_what_later_phases_own_is_ignored(engine: AsyncEngine, seeded: asyncpg.Connection) -> None:
    await put_pair(seeded, "a")
    await put_target(seeded, "a", project_id="p2", research_context="another view", created_at=None)
    await seeded.execute("""
        UPDATE project_collections SET tags = '["x"]', linked_project_question_ids = '{"q": 1}',
            linked_project_hypothesis_ids = NULL
    """)
    await put_legacy(seeded, "deleted", is_active=False)
    await put_target(seeded, "deleted", project_id="p3")

    run = await audited(engine)

    assert (run.verdict, run.compared, run.home_rows) == ("in_sync", 2, 1)
    assert await found(seeded) == {}


async def test_columns_that_are_not_projected_are_ignored(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_pair(seeded, "a")
    await seeded.execute("UPDATE collections SET collection_name = 'other', color = '#fff', note_count = 7")

    assert (await audited(engine)).verdict == "in_sync"


@pytest.mark.parametrize("event", ["api", "repair", "backfill"])
async def test_a_pair_whose_event_waits_is_pending_and_no_finding(
    event: str, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_legacy(seeded, "waits")
    await put_legacy(seeded, "drifts")
    await put_pair(seeded, "in sync, and waits")
    await seeded.execute(
        """
        INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
        SELECT unnest(ARRAY['waits', 'in sync, and waits']), 'collection.updated', $1, '{}'
        """,
        event,
    )

    run = await audited(engine)

    assert await found(seeded) == {"drifts": "missing"}
    assert (run.missing, run.pending) == (1, 1)


async def test_a_dead_letter_is_not_pending(engine: AsyncEngine, seeded: asyncpg.Connection) -> None:
    await put_legacy(seeded, "died")
    await seeded.execute("""
        INSERT INTO outbox_dead_letters (id, aggregate_id, event_type, source, payload, created_at, error)
        VALUES (nextval('outbox_events_id_seq'), 'died', 'collection.created', 'api', '{}', now(), 'poison')
    """)

    run = await audited(engine)

    assert (run.verdict, run.missing, run.pending) == ("drift", 1, 0)


async def test_only_the_project_asked_for_is_looked_at(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_legacy(seeded, "here")
    await put_legacy(seeded, "elsewhere", project_id="p2")
    await put_target(seeded, "elsewhere", project_id="p1")  # a link into this project

    run = await audited(engine, project_id="p1")

    assert await found(seeded) == {"here": "missing"}
    assert (run.project_id, run.compared, run.active_collections, run.home_rows) == ("p1", 1, 1, 0)


async def test_findings_hold_the_full_values_of_both_sides(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    values: dict[str, Any] = {"research_context": "x" * 1000, "updated_at": None}
    await put_pair(seeded, "a", **values)

    run = await audited(engine)

    row = await seeded.fetchrow(
        "SELECT legacy::text, target::text FROM audit_findings WHERE audit_run_id = $1", run.id
    )
    assert row["legacy"] == (
        '{"created_at": "2024-02-29T23:59:59.999999+00:00", "updated_at": "2024-03-01T00:00:00.000001+00:00",'
        ' "research_context": "text"}'
    )
    assert row["target"] == (
        '{"created_at": "2024-02-29T23:59:59.999999+00:00", "updated_at": null, "research_context": "'
        + "x" * 1000 + '"}'
    )  # fmt: skip


async def test_empty_tables_are_in_sync(engine: AsyncEngine, seeded: asyncpg.Connection) -> None:
    run = await audited(engine)

    assert (run.status, run.verdict, run.planned, run.compared) == ("finished", "in_sync", 0, 0)
    assert run.canary_found is True
    assert await found(seeded) == {}
