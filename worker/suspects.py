"""Which events of a batch that failed are likely at fault: the others need not be halved with them."""

from collections.abc import Sequence

import asyncpg

# Served by outbox_events_pkey, projects_pkey and collections_pkey. Names events whose time cannot be
# read, or whose project or collection does not exist. A hint: nobody is condemned by it.
SUSPECTS = """
    SELECT id
    FROM outbox_events
    WHERE id = ANY($1) AND NOT (
        pg_input_is_valid(coalesce(payload ->> 'created_at', 'now'), 'timestamptz')
        AND pg_input_is_valid(coalesce(payload ->> 'updated_at', 'now'), 'timestamptz')
        AND EXISTS (SELECT FROM projects WHERE project_id = payload ->> 'project_id')
        AND EXISTS (SELECT FROM collections WHERE collection_id = aggregate_id)
    )
"""


async def suspects(connection: asyncpg.Connection, ids: Sequence[int]) -> set[int]:
    """Return those of the claimed events that are likely to be refused; others may be refused too.

    Applied one by one, apart from the rest, they save the rest from being applied, and taken back,
    once for each time that the batch is halved.
    """
    return {row["id"] for row in await connection.fetch(SUSPECTS, ids)}
