"""Wrong ways to do it, each missing one mechanism. The harness must convict every one of them."""

from collections.abc import Sequence

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.race.storm import CHANGE, EVENT_TYPE, LOCK, Write
from tests.race.storm import write as right_write
from worker import apply as right
from worker.claim import CLAIM, ClaimedEvent, Lanes, Position
from worker.outcomes import Outcome, Verdict


def replaced(statement: str, old: str, new: str) -> str:
    """Replace a part that must be there: a twin that equals the real one convicts nobody."""
    assert old in statement
    return statement.replace(old, new)


DELETE_HOME_ROWS = """
    DELETE FROM project_collections AS target USING outbox_events AS event
    WHERE event.id = ANY($1) AND event.event_type = 'collection.deleted'
        AND target.project_id = event.payload ->> 'project_id' AND target.collection_id = event.aggregate_id
"""
UPSERT_LIVING = replaced(
    right.UPSERT_ROWS, "WHERE id = ANY($1)", "WHERE id = ANY($1) AND event_type <> 'collection.deleted'"
)
FORGET_TOMBSTONES = """
    DELETE FROM applied_versions USING outbox_events AS event
    WHERE event.id = ANY($1) AND collection_id = event.aggregate_id AND is_deleted
"""
WRITE_PASSED = replaced(
    right.UPSERT_ROWS, "id = ANY($1)", "id IN (SELECT version FROM passed WHERE NOT is_deleted)"
)
GUARD_AND_APPLY = f"""
    WITH passed (version, is_deleted, retires) AS ({right.GUARD}),
    retired AS (
        DELETE FROM project_collections AS target USING outbox_events AS event, passed
        WHERE event.id = passed.version AND passed.is_deleted
            AND target.project_id = event.payload ->> 'project_id'
            AND target.collection_id = event.aggregate_id
    ),
    written AS ({WRITE_PASSED})
    SELECT version FROM passed
"""  # noqa: S608 - made of constants
ADD_GUARDS = """
    INSERT INTO applied_versions (collection_id, version, project_id, is_deleted)
    SELECT DISTINCT ON (aggregate_id) aggregate_id, 0, payload ->> 'project_id', true
    FROM outbox_events WHERE id = ANY($1) ORDER BY aggregate_id
    ON CONFLICT DO NOTHING
"""
GUARD_ALL = """
    UPDATE applied_versions AS guard
    SET version = event.id, is_deleted = event.event_type = 'collection.deleted'
    FROM outbox_events AS event
    WHERE event.id = ANY($1) AND guard.collection_id = event.aggregate_id AND guard.version < event.id
    RETURNING guard.version
"""
DRAW_ID = text("SELECT nextval(pg_get_serial_sequence('outbox_events', 'id'))")
APPEND_WITH_ID = text("""
    INSERT INTO outbox_events (id, aggregate_id, event_type, source, payload)
    SELECT :event_id, collection_id, :event_type, 'api', jsonb_build_object('project_id', project_id,
        'research_context', description, 'created_at', created_at, 'updated_at', updated_at)
    FROM collections WHERE collection_id = :id
""")


async def blind_upsert(connection: asyncpg.Connection, ids: Sequence[int]) -> set[int]:
    """Whoever comes last wins, however old."""
    await connection.execute(DELETE_HOME_ROWS, ids)
    await connection.execute(UPSERT_LIVING, ids)
    return set(ids)


async def guard_without_tombstone(connection: asyncpg.Connection, ids: Sequence[int]) -> set[int]:
    """A deletion forgets the version, so that an older event brings the row back."""
    passed = await right.apply(connection, ids)
    await connection.execute(FORGET_TOMBSTONES, list(passed))
    return passed


async def guard_and_apply_in_one_statement(connection: asyncpg.Connection, ids: Sequence[int]) -> set[int]:
    """The deletion's snapshot is older than the lock it waited for."""
    return {row["version"] for row in await connection.fetch(GUARD_AND_APPLY, ids)}


async def apply_all_events_of_a_key(connection: asyncpg.Connection, ids: Sequence[int]) -> set[int]:
    """With several events of a key in one set, UPDATE … FROM takes any of them."""
    await connection.execute(ADD_GUARDS, ids)
    passed = [row["version"] for row in await connection.fetch(GUARD_ALL, ids)]
    await connection.execute(DELETE_HOME_ROWS, passed)
    await connection.execute(UPSERT_LIVING, passed)
    return set(passed)


async def settle_without_conflation(
    connection: asyncpg.Connection, events: Sequence[ClaimedEvent], *, isolating: bool
) -> dict[int, Verdict]:
    del isolating
    passed = await apply_all_events_of_a_key(connection, [event.id for event in events])
    return {e.id: Verdict(Outcome.APPLIED if e.id in passed else Outcome.STALE) for e in events}


async def write_with_id_drawn_before_the_lock(
    connection: AsyncConnection, collection_id: str, description: str
) -> None:
    """The order of ids is not the order of commits."""
    event_id = (await connection.execute(DRAW_ID)).scalar_one()
    was_active = bool((await connection.execute(LOCK, {"id": collection_id})).scalar_one())
    is_active = not was_active
    await connection.execute(
        CHANGE, {"id": collection_id, "description": description, "is_active": is_active}
    )
    await connection.execute(
        APPEND_WITH_ID, {"event_id": event_id, "event_type": EVENT_TYPE[is_active], "id": collection_id}
    )


class Cursor:
    """Reads on from the highest id seen: what commits late with a lower id is never seen."""

    def __init__(self) -> None:
        self._last = 0

    async def claim(
        self, connection: asyncpg.Connection, limit: int, _lanes: Lanes, _start: Position
    ) -> list[ClaimedEvent]:
        from_there = replaced(CLAIM, "lane <= $2 AND (lane, id) > ($3, $4)", "id > $2")
        in_order = replaced(from_there, "ORDER BY lane, id", "ORDER BY id")
        statement = replaced(in_order, "SKIP LOCKED", "")
        events = [ClaimedEvent(*row) for row in await connection.fetch(statement, limit, self._last)]
        self._last = max([self._last, *(event.id for event in events)])
        return events


def put_in_place(twin: str, patch: pytest.MonkeyPatch) -> Write:
    """Replace the mechanism by its twin and return the way to write."""
    match twin:
        case "blind upsert":
            patch.setattr("worker.settle.apply", blind_upsert)
        case "guard without tombstone":
            patch.setattr("worker.settle.apply", guard_without_tombstone)
        case "guard and apply in one statement":
            patch.setattr("worker.settle.apply", guard_and_apply_in_one_statement)
        case "several events of a key without conflation":
            patch.setattr("worker.relay.settle", settle_without_conflation)
        case "reading with an id > last cursor":
            patch.setattr("worker.relay.claim", Cursor().claim)
        case "event id drawn before the row lock":
            return write_with_id_drawn_before_the_lock
        case _:
            raise ValueError(twin)
    return right_write


TWINS = (
    "blind upsert",
    "guard without tombstone",
    "guard and apply in one statement",
    "event id drawn before the row lock",
    "reading with an id > last cursor",
    "several events of a key without conflation",
)
