"""What a dead event holds, for operators to see."""

from typing import Any

from sqlalchemy import Text, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.stored import json_of
from shared.tables.legacy import collections
from shared.tables.outbox import applied_versions, outbox_dead_letters


async def read_payload(connection: AsyncConnection, letter_id: int) -> Any:  # noqa: ANN401 - any JSON
    """Return the payload of the letter, which exists, as it was appended."""
    payload = select(cast(outbox_dead_letters.c.payload, Text)).where(outbox_dead_letters.c.id == letter_id)
    return json_of((await connection.execute(payload)).scalar_one())


async def read_present_state(connection: AsyncConnection, collection_id: str) -> dict[str, Any] | None:
    """Return what a replay would append, and the version applied last; None: there is no such collection."""
    state = (
        select(
            collections.c.project_id,
            collections.c.description.label("research_context"),
            func.to_json(collections.c.created_at).label("created_at"),
            func.to_json(collections.c.updated_at).label("updated_at"),
            func.coalesce(collections.c.is_active, False).label("is_active"),
            applied_versions.c.version.label("applied_version"),
        )
        .outerjoin(applied_versions, applied_versions.c.collection_id == collections.c.collection_id)
        .where(collections.c.collection_id == collection_id)
    )
    row = (await connection.execute(state)).mappings().one_or_none()
    return None if row is None else dict(row)
