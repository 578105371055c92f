"""What a dead event holds, for operators to see."""

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.events import NO_EVENT
from shared.projection import COLUMNS, PAYLOAD
from shared.stored import json_of

# Served by outbox_dead_letters_pkey.
HELD = text("SELECT payload::text FROM outbox_dead_letters WHERE id = :letter_id")

# The very expression by which a replay appends. Served by collections_pkey and applied_versions_pkey.
PRESENT = text(f"""
    SELECT
        {PAYLOAD}::text AS state,
        is_active IS TRUE AS is_active,
        (
            SELECT nullif(version, {NO_EVENT})
            FROM applied_versions WHERE collection_id = collections.collection_id LIMIT 1
        ) AS applied_version
    FROM collections
    WHERE collection_id = :collection_id
""")  # noqa: S608 - constants


async def read_payload(connection: AsyncConnection, letter_id: int) -> Any:  # noqa: ANN401 - any JSON
    """Return the payload of the letter, which exists, as it was appended."""
    return json_of((await connection.execute(HELD, {"letter_id": letter_id})).scalar_one())


async def read_present_state(connection: AsyncConnection, collection_id: str) -> dict[str, Any] | None:
    """Return what a replay would append, and the version applied last; None: there is no such collection."""
    row = (await connection.execute(PRESENT, {"collection_id": collection_id})).one_or_none()
    if row is None:
        return None
    state = json_of(row.state)
    copied = {name: state[name] for name in ("project_id", *(column.name for column in COLUMNS))}
    return {**copied, "is_active": row.is_active, "applied_version": row.applied_version}
