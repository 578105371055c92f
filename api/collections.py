"""The collections service. `write` is the one road by which the API changes anything."""

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from api.access import refuse_nul, require_access, resolve_email
from api.context import CollectionSync
from api.errors import CollectionNotFoundError, ReadOnlyModeError
from shared.events import EventType, Source
from shared.legacy_tables import activity_logs, article_collections, collections
from shared.outbox import append_event
from shared.traceparent import current_trace_id

logger = structlog.get_logger(__name__)

Record = Row[*tuple[Any, ...]]  # of `collections`

ACTIVITIES = {
    EventType.CREATED: ("collection_created", "Created"),
    EventType.UPDATED: ("collection_updated", "Updated"),
    EventType.DELETED: ("collection_deleted", "Deleted"),
}

# Served by idx_collection_project_id, and per collection by idx_article_collection_id.
ARTICLE_COUNT = (
    select(func.count(article_collections.c.article_pmid))  # counts rows with a pmid, not NULLs
    .where(article_collections.c.collection_id == collections.c.collection_id)
    .scalar_subquery()
)
LIST = (
    select(*collections.c, ARTICLE_COUNT.label("article_count"))
    .where(collections.c.is_active)
    .order_by(collections.c.created_at, collections.c.collection_id)
)


async def write(
    sync: CollectionSync,
    caller: str,
    project_id: str,
    event_type: EventType,
    change: Callable[[AsyncConnection], Awaitable[Record]],
) -> Record:
    """Change one collection, log the activity and append the event in one transaction; then ring.

    Args:
        sync: the resources of this process.
        caller: the id of the user who writes; e-mail addresses are not resolved here.
        project_id: the collection's home project.
        event_type: what `change` does.
        change: writes or locks the collection's row and returns it. The event's id is drawn after
            it, under the row's lock, so per collection the order of ids is the order of commits.

    Raises:
        ReadOnlyModeError, AccessDeniedError, CollectionNotFoundError: and nothing was changed.

    """
    if sync.settings.read_only_mode:
        raise ReadOnlyModeError
    async with sync.engine.begin() as connection:
        await require_access(connection, project_id, caller)
        row = await change(connection)
        await log_activity(connection, caller, event_type, row)
        event_id = await append_event(connection, row.collection_id, event_type, Source.API)
    sync.doorbell.press()
    sync.appended[event_type] += 1
    trace_id = current_trace_id()
    logger.info(
        "collection_written",
        action=ACTIVITIES[event_type][0],
        collection_id=row.collection_id,
        project_id=project_id,
        event_id=event_id,
        event_type=event_type,
        **({} if trace_id is None else {"trace_id": trace_id}),
    )
    return row


async def list_collections(sync: CollectionSync, caller: str, project_id: str) -> Sequence[Record]:
    """Return the project's active collections with their article counts, oldest first.

    Raises:
        AccessDeniedError: the caller, whose e-mail address is resolved here, has no access.

    """
    async with sync.engine.connect() as connection:
        user_id = await resolve_email(connection, caller)
        await require_access(connection, project_id, user_id)
        listed = await connection.execute(LIST.where(collections.c.project_id == project_id))
        return listed.all()


async def create_collection(
    sync: CollectionSync, caller: str, project_id: str, values: Mapping[str, Any]
) -> Record:
    """Write a new collection with an id of its own and return its row."""
    new = {**values, "project_id": project_id, "created_by": caller}
    return await write(sync, caller, project_id, EventType.CREATED, partial(insert_row, values=new))


async def update_collection(
    sync: CollectionSync, caller: str, project_id: str, collection_id: str, values: Mapping[str, Any]
) -> Record:
    """Set the values that are given and return the row.

    Where nothing differs the row stays as it is, `updated_at` included. The event is appended all
    the same: it creates the collection's row in `project_collections` where that is missing.
    """
    change = partial(change_row, project_id=project_id, collection_id=collection_id, values=values)
    return await write(sync, caller, project_id, EventType.UPDATED, change)


async def delete_collection(sync: CollectionSync, caller: str, project_id: str, collection_id: str) -> None:
    """Mark the collection as deleted; its row and its articles stay."""
    gone = {"is_active": False}
    change = partial(change_row, project_id=project_id, collection_id=collection_id, values=gone)
    await write(sync, caller, project_id, EventType.DELETED, change)


async def insert_row(connection: AsyncConnection, values: Mapping[str, Any]) -> Record:
    """Insert a collection; the database sets both of its timestamps, to the same time."""
    fixed = {"collection_id": str(uuid.uuid4()), "is_active": True, "sort_order": 0}
    inserted = await connection.execute(
        insert(collections).values(**values, **fixed).returning(*collections.c)
    )
    return inserted.one()


async def change_row(
    connection: AsyncConnection, project_id: str, collection_id: str, values: Mapping[str, Any]
) -> Record:
    """Lock the collection's row, set the values that differ and return the row as it is now.

    Raises:
        CollectionNotFoundError: the project has no active collection of that id.

    """
    row = await lock_row(connection, project_id, collection_id)
    different = {name: value for name, value in values.items() if getattr(row, name) != value}
    if not different:
        return row
    # Not now(): this transaction may have begun before the one that wrote the row last.
    changed = await connection.execute(
        update(collections)
        .where(collections.c.collection_id == collection_id)
        .values(**different, updated_at=func.clock_timestamp())
        .returning(*collections.c)
    )
    return changed.one()


async def lock_row(connection: AsyncConnection, project_id: str, collection_id: str) -> Record:
    """Lock the collection against other writers until the transaction ends, and return its row.

    FOR NO KEY UPDATE: the worker's foreign-key check of the same row does not wait for us.
    """
    refuse_nul(collection_id)
    found = await connection.execute(
        select(collections)
        .where(
            collections.c.collection_id == collection_id,
            collections.c.project_id == project_id,
            collections.c.is_active,
        )
        .with_for_update(key_share=True)
    )
    row = found.one_or_none()
    if row is None:
        raise CollectionNotFoundError
    return row


async def log_activity(connection: AsyncConnection, caller: str, event_type: EventType, row: Record) -> None:
    """Add the write to the project's activity log."""
    activity_type, verb = ACTIVITIES[event_type]
    await connection.execute(
        insert(activity_logs).values(
            activity_id=str(uuid.uuid4()),
            project_id=row.project_id,
            user_id=caller,
            activity_type=activity_type,
            description=f"{verb} collection '{row.collection_name}'",
            activity_metadata={"collection_id": row.collection_id},
        )
    )
