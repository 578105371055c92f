"""The collections service. `write` is the one road by which the API changes anything."""

import uuid
from collections.abc import Mapping
from typing import Any

import structlog

from api.context import CollectionSync
from api.gate.errors import ReadOnlyModeError
from api.gate.identification import identification
from api.idempotency import carry_out_once
from api.write_statement import ACTIVITIES, Write, Written, carry_out
from shared.events import EventType
from shared.postgres.database import driver_connection

logger = structlog.get_logger(__name__)


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
