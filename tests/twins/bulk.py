"""Backfills, audits, repairs, replays and rollbacks that each miss one mechanism."""

from collections.abc import Sequence

import pytest
from sqlalchemy import ColumnElement, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared import outbox
from shared.audit_runs import AuditRun
from shared.events import EventType, Source
from shared.pair import differs
from tests.twins.replacing import replaced, with_statement
from worker.audit import comparison, findings, repair
from worker.backfill import chunk as right_chunk
from worker.backfill.find import Found
from worker.custody import Custody

TEXT_DIFFERS_OR_EMPTY = "coalesce(legacy.research_context, '') <> coalesce(target.research_context, '')"
MOVE_CURSOR = text("UPDATE backfill_runs SET cursor_key = :last_key WHERE status = 'running'")

APPEND_LETTERS = text("""
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT aggregate_id, event_type, :source, payload FROM outbox_dead_letters
    WHERE aggregate_id = ANY(:collection_ids)
    RETURNING aggregate_id, id
""")

lock_no_rows = with_statement("shared.outbox.APPEND_STATES", "FOR SHARE", "")


async def commit_and_go_on(connection: AsyncConnection) -> None:
    """End the transaction that is open and begin another, unnoticed by whoever opened it."""
    await connection.exec_driver_sql("COMMIT")
    await connection.exec_driver_sql("BEGIN")


async def append_as_deleted(
    connection: AsyncConnection, keys: Sequence[str], _event_type: EventType, source: Source
) -> dict[str, int]:
    """Pass on what a row was when it was found, not what it is once it is locked."""
    return await outbox.append_states(connection, keys, EventType.DELETED, source)


async def leave_unguarded(_connection: AsyncConnection, _found: Found) -> None:
    """Let what is in sync be, so that nobody knows which project it leaves."""


guard_by_what_is_there_now = with_statement(
    "worker.backfill.guards.INSERT_GUARDS",
    "ORDER BY collection_id",
    """WHERE project_id = (
        SELECT project_id FROM collections WHERE collections.collection_id = seen.collection_id
    )""",
)
guard_over_what_was_applied = with_statement(
    "worker.backfill.guards.INSERT_GUARDS",
    "DO NOTHING",
    "DO UPDATE SET version = excluded.version, project_id = excluded.project_id",
)


def move_the_cursor_afterwards(patch: pytest.MonkeyPatch) -> None:
    """Commit the events, and the cursor in the next transaction: a crash leaves events of no run."""
    right_append = right_chunk._append  # noqa: SLF001 - the twin is its sibling

    async def append(connection: AsyncConnection, found: Found) -> dict[str, int]:
        event_ids = await right_append(connection, found)
        await commit_and_go_on(connection)
        return event_ids

    patch.setattr(right_chunk, "_append", append)


def move_the_cursor_ahead(patch: pytest.MonkeyPatch) -> None:
    """Commit the cursor, and the events in the next transaction: a crash leaves rows out."""
    right_append = right_chunk._append  # noqa: SLF001 - the twin is its sibling

    async def append(connection: AsyncConnection, found: Found) -> dict[str, int]:
        await connection.execute(MOVE_CURSOR, {"last_key": found.last_key})
        await commit_and_go_on(connection)
        return await right_append(connection, found)

    patch.setattr(right_chunk, "_append", append)


def held_by_its_number(custody: Custody[AuditRun]) -> ColumnElement[bool]:
    """Take a run for held whatever another process drew."""
    return custody.runs.table.c.id == custody.run.id


def held_by_its_token(custody: Custody[AuditRun]) -> ColumnElement[bool]:
    """Know nothing of a release that takes an audit by its start."""
    return custody.runs.table.c.driver_token == custody.token


async def see_no_canary(*_: object) -> None:
    """Find the comparison able to see, whatever it is."""


def blind(old: str, new: str, patch: pytest.MonkeyPatch) -> None:
    """Change the comparison wherever it does this, and keep the canary from noticing."""
    patch.setattr("worker.audit.run.blindness", see_no_canary)
    for module, name in ((comparison, "STRAYS"), (comparison, "TALLY"), (findings, "RECORD")):
        statement = getattr(module, name)
        patch.setattr(module, name, statement.replace(old, new))
    assert old in comparison.DIFFERENCES  # of which RECORD is made


def ignore_pending_events(patch: pytest.MonkeyPatch) -> None:
    blind(comparison.WAITS, "false", patch)


def believe_what_is_too_old(patch: pytest.MonkeyPatch) -> None:
    blind("WHERE event.id > coalesce(guard.version, 0)", "", patch)


def wait_for_what_nobody_claims(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("worker.audit.run.blindness", see_no_canary)
    for name in ("STRAYS", "TALLY"):
        statement = getattr(comparison, name)
        patch.setattr(comparison, name, statement.replace(comparison.WAITS_IN_VAIN, "false"))


def take_null_for_empty(patch: pytest.MonkeyPatch) -> None:
    blind(differs("research_context"), TEXT_DIFFERS_OR_EMPTY, patch)


def believe_any_count(patch: pytest.MonkeyPatch) -> None:
    """Take what was compared for what was to be compared."""
    planned = f"(SELECT count(*) FROM collections WHERE {comparison.IN_SLICE})"  # noqa: S608 - constants
    tally = replaced(comparison.TALLY, planned, "count(legacy_id)")
    patch.setattr(comparison, "TALLY", tally)


def repair_by_what_was_found(patch: pytest.MonkeyPatch) -> None:
    """Write deletions as deletions, although the collection may be back."""
    patch.setitem(repair.EVENT_TYPES, "orphaned", EventType.DELETED)


async def append_what_died(
    connection: AsyncConnection, keys: Sequence[str], _event_type: EventType, source: Source
) -> dict[str, int]:
    """Bring the event itself back, which may be older than what the target shows."""
    appended = await connection.execute(APPEND_LETTERS, {"source": source, "collection_ids": list(keys)})
    return {row.aggregate_id: row.id for row in appended}


keep_no_batch_out = with_statement(
    "worker.rollback.statements.KEEP_BATCHES_OUT",
    "LOCK TABLE applied_versions IN SHARE ROW EXCLUSIVE MODE",
    "SELECT 1",
)
