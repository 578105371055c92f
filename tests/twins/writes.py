"""Writers that each miss one mechanism between the request and the outbox."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from api import collections as right
from api import write_statement
from api.admin.acts import Act
from api.context import CollectionSync
from api.write_statement import ACTIVITIES, Write, Written
from shared.events import Source
from shared.outbox import append_event
from shared.phase.phases import Phase
from shared.phase.turn import hold
from shared.projection import PAYLOAD
from shared.redis.doorbell import ring
from shared.redis.faults import REDIS_ERRORS
from shared.tables.operators import operator_acts
from tests.race.storm import CHANGE, EVENT_TYPE, LOCK
from tests.twins.replacing import replaced

DRAW_ID = text("SELECT nextval(pg_get_serial_sequence('outbox_events', 'id'))")
APPEND_WITH_ID = text(f"""
    INSERT INTO outbox_events (id, aggregate_id, event_type, source, payload)
    SELECT :event_id, collection_id, :event_type, 'api', {PAYLOAD}
    FROM collections WHERE collection_id = :id
    RETURNING id
""")  # noqa: S608 - a constant

LOG_ACTIVITY = text("""
    INSERT INTO activity_logs (activity_id, project_id, user_id, activity_type, description)
    VALUES (:id, :project_id, :caller, :activity_type, :description)
""")
NOT_LOGGED = "logged AS (SELECT $7::text, $8::text, $9::text, $10::json)"
NOT_APPENDED = "appended AS (SELECT 0 AS event_id, $5::text, $6::text FROM written)"

DRAWN = "drawn AS MATERIALIZED (SELECT nextval(pg_get_serial_sequence('outbox_events', 'id')) AS id)"
DRAWN_FIRST = {
    "locked AS MATERIALIZED": f"{DRAWN}, locked AS MATERIALIZED",
    "FOR NO KEY UPDATE": "AND (SELECT id FROM drawn) > 0 FOR NO KEY UPDATE",
    "outbox_events (aggregate_id": "outbox_events (id, aggregate_id",
    "SELECT collection_id, $5": "SELECT (SELECT id FROM drawn), collection_id, $5",
}


def draw_the_id_before_the_lock(patch: pytest.MonkeyPatch) -> None:
    """Let the order of ids differ from the order of commits."""
    statement = write_statement.CHANGE
    for old, new in DRAWN_FIRST.items():
        statement = replaced(statement, old, new)
    patch.setattr(write_statement, "CHANGE", statement)


def believe_in_every_plan(_error: BaseException) -> bool:
    """Take no statement for outdated."""
    return False


def leave_out(patch: pytest.MonkeyPatch, part: str, instead: str) -> None:
    """Let both statements of a write lack a part."""
    for name in ("CREATE", "CHANGE"):
        patch.setattr(write_statement, name, replaced(getattr(write_statement, name), part, instead))


async def write_with_id_drawn_before_the_lock(
    connection: AsyncConnection, collection_id: str, description: str
) -> None:
    """Do the same in a storm."""
    event_id = (await connection.execute(DRAW_ID)).scalar_one()
    was_active = bool((await connection.execute(LOCK, {"id": collection_id})).scalar_one())
    is_active = not was_active
    await connection.execute(
        CHANGE, {"id": collection_id, "description": description, "is_active": is_active}
    )
    await connection.execute(
        APPEND_WITH_ID, {"event_id": event_id, "event_type": EVENT_TYPE[is_active], "id": collection_id}
    )


def append_after_the_commit(patch: pytest.MonkeyPatch) -> None:
    """Be the naive outbox: the row is committed, and its event may never be."""
    right_write = right.write

    async def write(sync: CollectionSync, wanted: Write) -> Written:
        row = await right_write(sync, wanted)
        async with sync.engine.begin() as connection:
            await append_event(connection, row["collection_id"], wanted.event_type, Source.API)
        return row

    leave_out(patch, write_statement.APPENDED, NOT_APPENDED)
    patch.setattr(right, "write", write)


def log_activity_after_the_commit(patch: pytest.MonkeyPatch) -> None:
    """Do as the legacy service does."""
    right_write = right.write

    async def write(sync: CollectionSync, wanted: Write) -> Written:
        row = await right_write(sync, wanted)
        activity_type, verb = ACTIVITIES[wanted.event_type]
        activity = {
            "id": row["collection_id"],
            "project_id": wanted.project_id,
            "caller": wanted.caller,
            "activity_type": activity_type,
            "description": f"{verb} collection '{row['collection_name']}'",
        }
        async with sync.engine.begin() as connection:
            await connection.execute(LOG_ACTIVITY, activity)
        return row

    leave_out(patch, write_statement.LOGGED, NOT_LOGGED)
    patch.setattr(right, "write", write)


def ring_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    """Wake a worker that finds nothing, and then sleeps."""
    right_write = right.write

    async def write(sync: CollectionSync, wanted: Write) -> Written:
        sync.doorbell.press()
        return await right_write(sync, wanted)

    patch.setattr(right, "write", write)


def await_the_ring(patch: pytest.MonkeyPatch) -> None:
    """Let the request wait for Redis, if not for long."""
    right_write = right.write

    async def write(sync: CollectionSync, wanted: Write) -> Written:
        row = await right_write(sync, wanted)
        with contextlib.suppress(*REDIS_ERRORS):
            async with asyncio.timeout(0.3):
                await ring(sync.redis, await sync.doorbell.deployment.names())
        return row

    patch.setattr(right, "write", write)


@contextlib.asynccontextmanager
async def record_afterwards(sync: CollectionSync, actor: str, name: str) -> AsyncIterator[Act]:
    """Record an act when it is committed, as what logs does."""
    async with sync.engine.begin() as connection:
        act = Act(connection)
        yield act
    row = {"actor": actor, "act": name, "subject": act.subject, "outcome": act.outcome}
    async with sync.engine.begin() as connection:
        await connection.execute(insert(operator_acts).values(row))


async def hold_whatever_was_seen(connection: AsyncConnection, _epoch: int | None = None) -> Phase:
    """Lock the phase's row, and turn on from whatever stands there then."""
    return await hold(connection)
