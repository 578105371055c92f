"""The collections service. `write` is the one road by which the API changes anything."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy import JSON, DateTime, Row, Text, cast, func, select

from api.access import require_access, resolve_email
from api.context import CollectionSync
from api.gate.errors import ReadOnlyModeError
from api.gate.identification import identification
from api.idempotency import carry_out_once
from api.write_statement import ACTIVITIES, Write, Written, carry_out
from shared.events import EventType
from shared.postgres.database import autocommit, driver_connection
from shared.tables.legacy import article_collections, collections

logger = structlog.get_logger(__name__)

Listed = Row[*tuple[Any, ...]]  # of `collections`, with its article count

# Served by idx_collection_project_id, and per collection by idx_article_collection_id.
ARTICLE_COUNT = (
    select(func.count(article_collections.c.article_pmid))  # counts rows with a pmid, not NULLs
    .where(article_collections.c.collection_id == collections.c.collection_id)
    .scalar_subquery()
)
# Texts of what Python may not be able to hold.
SHOWN = [
    func.to_json(column).label(column.name)
    if isinstance(column.type, DateTime)
    else cast(column, Text).label(column.name)
    if isinstance(column.type, JSON)
    else column
    for column in collections.c
]
LIST = (
    select(*SHOWN, ARTICLE_COUNT.label("article_count"))
    .where(collections.c.is_active)
    .order_by(collections.c.created_at, collections.c.collection_id)
)


async def write(sync: CollectionSync, wanted: Write) -> Written:
    """Write one collection, log the activity and append the event in one transaction; then ring.

    A creation whose key is known already changes nothing, and returns the row as it was answered.

    Raises:
        ReadOnlyModeError, AccessDeniedError, CollectionNotFoundError, ReusedKeyError: nothing was changed.

    """
    if sync.settings.read_only_mode:
        raise ReadOnlyModeError
    async with driver_connection(sync.engine) as connection:
        row = await (carry_out if wanted.key is None else carry_out_once)(connection, wanted)
    where = {
        "collection_id": row["collection_id"],
        "project_id": wanted.project_id,
        **identification(),
    }
    if row["event_id"] is None:
        logger.info("collection_repeated", **where)
        return row
    sync.doorbell.press()
    sync.appended[wanted.event_type] += 1
    logger.info(
        "collection_written",
        action=ACTIVITIES[wanted.event_type][0],
        event_id=row["event_id"],
        event_type=wanted.event_type,
        **where,
    )
    return row


async def list_collections(sync: CollectionSync, caller: str, project_id: str) -> Sequence[Listed]:
    """Return the project's active collections with their article counts, oldest first.

    Raises:
        AccessDeniedError: the caller, whose e-mail address is resolved here, has no access.

    """
    async with autocommit(sync.engine) as connection:
        user_id = await resolve_email(connection, caller)
        await require_access(connection, project_id, user_id)
        listed = await connection.execute(LIST.where(collections.c.project_id == project_id))
        return listed.all()


async def create_collection(
    sync: CollectionSync, caller: str, project_id: str, values: Mapping[str, Any], key: str | None = None
) -> Written:
    return await write(sync, Write(EventType.CREATED, caller, project_id, str(uuid.uuid4()), values, key))


async def update_collection(
    sync: CollectionSync, caller: str, project_id: str, collection_id: str, values: Mapping[str, Any]
) -> Written:
    """Set the values that are given and return the row.

    Where nothing differs the row stays as it is, `updated_at` included. The event is appended all
    the same: it creates the collection's row in `project_collections` where that is missing.
    """
    return await write(sync, Write(EventType.UPDATED, caller, project_id, collection_id, values))


async def delete_collection(sync: CollectionSync, caller: str, project_id: str, collection_id: str) -> None:
    await write(sync, Write(EventType.DELETED, caller, project_id, collection_id, {"is_active": False}))
