"""Writers that each miss one mechanism between the request and the outbox."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from api import collections as right
from api.context import CollectionSync
from api.errors import CollectionNotFoundError
from shared.doorbell import REDIS_ERRORS, ring
from shared.events import EventType, Source
from shared.legacy_tables import collections
from shared.outbox import PAYLOAD, append_event
from tests.race.storm import CHANGE, EVENT_TYPE, LOCK

DRAW_ID = text("SELECT nextval(pg_get_serial_sequence('outbox_events', 'id'))")
APPEND_WITH_ID = text(f"""
    INSERT INTO outbox_events (id, aggregate_id, event_type, source, payload)
    SELECT :event_id, collection_id, :event_type, 'api', {PAYLOAD}
    FROM collections WHERE collection_id = :id
    RETURNING id
""")  # noqa: S608 - a constant

Change = Callable[[AsyncConnection], Awaitable[right.Record]]


async def commit_and_go_on(connection: AsyncConnection) -> None:
    """End the transaction that is open and begin another, unnoticed by whoever opened it."""
    await connection.exec_driver_sql("COMMIT")
    await connection.exec_driver_sql("BEGIN")


async def read_row_without_lock(
    connection: AsyncConnection, project_id: str, collection_id: str
) -> right.Record:
    """Decide by a row that another writer is just changing."""
    found = await connection.execute(
        select(collections).where(
            collections.c.collection_id == collection_id,
            collections.c.project_id == project_id,
            collections.c.is_active,
        )
    )
    row = found.one_or_none()
    if row is None:
        raise CollectionNotFoundError
    return row


def draw_the_id_before_the_lock(patch: pytest.MonkeyPatch) -> None:
    """Let the order of ids differ from the order of commits."""
    drawn: ContextVar[int] = ContextVar("drawn")
    right_change = right.change_row

    async def change_row(
        connection: AsyncConnection, project_id: str, collection_id: str, values: Mapping[str, Any]
    ) -> right.Record:
        drawn.set((await connection.execute(DRAW_ID)).scalar_one())
        return await right_change(connection, project_id, collection_id, values)

    async def append(
        connection: AsyncConnection, collection_id: str, event_type: EventType, source: Source
    ) -> int:
        del source
        values = {"event_id": drawn.get(), "event_type": event_type, "id": collection_id}
        event_id: int = (await connection.execute(APPEND_WITH_ID, values)).scalar_one()
        return event_id

    patch.setattr(right, "change_row", change_row)
    patch.setattr(right, "append_event", append)


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


async def append_after_the_commit(
    connection: AsyncConnection, collection_id: str, event_type: EventType, source: Source
) -> int:
    """Be the naive outbox: the row is committed, and its event may never be."""
    await commit_and_go_on(connection)
    return await append_event(connection, collection_id, event_type, source)


def log_activity_after_the_commit(patch: pytest.MonkeyPatch) -> None:
    """Do as the legacy service does."""
    right_write, right_log = right.write, right.log_activity

    async def no_log(*_: object) -> None:
        pass

    async def write(
        sync: CollectionSync, caller: str, project_id: str, event_type: EventType, change: Change
    ) -> right.Record:
        row = await right_write(sync, caller, project_id, event_type, change)
        async with sync.engine.begin() as connection:
            await right_log(connection, caller, event_type, row)
        return row

    patch.setattr(right, "log_activity", no_log)
    patch.setattr(right, "write", write)


def ring_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    """Wake a worker that finds nothing, and then sleeps."""
    right_write = right.write

    async def write(
        sync: CollectionSync, caller: str, project_id: str, event_type: EventType, change: Change
    ) -> right.Record:
        sync.doorbell.press()
        return await right_write(sync, caller, project_id, event_type, change)

    patch.setattr(right, "write", write)


def await_the_ring(patch: pytest.MonkeyPatch) -> None:
    """Let the request wait for Redis, if not for long."""
    right_write = right.write

    async def write(
        sync: CollectionSync, caller: str, project_id: str, event_type: EventType, change: Change
    ) -> right.Record:
        row = await right_write(sync, caller, project_id, event_type, change)
        with contextlib.suppress(*REDIS_ERRORS):
            async with asyncio.timeout(0.3):
                await ring(sync.redis)
        return row

    patch.setattr(right, "write", write)
