"""Guards for what is in sync although no event of it was ever applied: others wrote both rows.

An event that moves such a collection would find no guard, and so not know which project it leaves: its row
there would stay, as a link that nobody made. The guard says where the chunk saw it at home, under a version
that every event is newer than, and that the row was not our making.

The row of `collections` is not locked, so this may be late. Where an event was applied meanwhile, its guard
stays. Where none was, no worker has touched the target since, and an event that waits, of a move or a
deletion, finds the row that it has to take away. So what the chunk saw is written, not what is there now:
read anew, a collection that was moved meanwhile is not in sync, and would get no guard.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.events import NO_EVENT
from worker.backfill.find import Found

# Served by applied_versions_pkey. In key order, as a batch writes its own; what a batch has in hand is waited
# for.
INSERT_GUARDS = text(f"""
    INSERT INTO applied_versions (collection_id, version, project_id, is_deleted, found_row, row_id)
    SELECT collection_id, {NO_EVENT}, project_id, false, true, row_id
    FROM unnest(CAST(:unguarded AS varchar[]), CAST(:homes AS varchar[]), CAST(:row_ids AS bigint[]))
        AS seen (collection_id, project_id, row_id)
    ORDER BY collection_id
    ON CONFLICT (collection_id) DO NOTHING
""")  # noqa: S608 - a constant


async def insert_guards(connection: AsyncConnection, found: Found) -> None:
    """Give each unguarded collection its guard; a batch with an event of one waits until the commit."""
    if found.unguarded:
        guards = {"unguarded": found.unguarded, "homes": found.homes, "row_ids": found.row_ids}
        await connection.execute(INSERT_GUARDS, guards)
