"""How far one collection has come on its way to `project_collections`, for the people who wait for it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from sqlalchemy import text

from api.access import refuse_nul, require_access, resolve_email
from api.context import CollectionSync
from api.gate.errors import CollectionNotFoundError
from shared.events import NO_EVENT
from shared.postgres.database import autocommit

EXAMPLE: JsonDict = {
    "collection_id": "c1111111-0000-4000-8000-000000000001",
    "state": "pending",
    "applied_version": 41,
    "latest_version": 43,
    "lag_ms": 3.217,
    "dead_letter_id": 42,
}

# One snapshot, in which an event either waits or was applied: a worker does both in one transaction.
# Neither the target nor a payload is read. Served by collections_pkey, applied_versions_pkey,
# outbox_events_of_aggregate, outbox_dead_letters_of_aggregate and backfill_runs_pkey. A backfill
# appends nothing for what agrees already, so what it has passed needs no version to be in step. Nor does what
# was deleted since: its tombstone is removed in time. An open letter is named unless it was overtaken, as
# workers judge it (`worker/dead_letters/upkeep.py`): they may not have closed it yet.
READ_STATE = text(f"""
    SELECT
        collection_id,
        CASE
            WHEN waiting.newest_id IS NOT NULL THEN 'pending'
            WHEN dead.newest_id > coalesce(guard.version, 0)
                OR guard.dated_version = guard.version AND dead.newest_at > guard.appended_at THEN 'dead'
            WHEN guard.version IS NOT NULL OR backfill.passed THEN 'synced'
            ELSE 'pending'
        END AS state,
        nullif(guard.version, {NO_EVENT}) AS applied_version,
        greatest(nullif(guard.version, {NO_EVENT}), waiting.newest_id, dead.newest_id) AS latest_version,
        round(coalesce(extract(epoch FROM clock_timestamp() - waiting.oldest_at), 0) * 1000, 3) AS lag_ms,
        (
            SELECT letter.id FROM outbox_dead_letters AS letter
            WHERE letter.aggregate_id = collections.collection_id AND letter.closed_at IS NULL
                AND (
                    letter.id > coalesce(guard.version, 0)
                    OR guard.dated_version = guard.version AND letter.created_at > guard.appended_at
                )
            ORDER BY letter.aggregate_id DESC, letter.id DESC
            LIMIT 1
        ) AS dead_letter_id
    FROM collections
    LEFT JOIN applied_versions AS guard USING (collection_id)
    CROSS JOIN LATERAL (
        SELECT max(id) AS newest_id, min(created_at) AS oldest_at
        FROM outbox_events
        WHERE aggregate_id = collections.collection_id
    ) AS waiting
    CROSS JOIN LATERAL (
        SELECT max(id) AS newest_id, max(created_at) AS newest_at
        FROM outbox_dead_letters
        WHERE aggregate_id = collections.collection_id
    ) AS dead
    CROSS JOIN LATERAL (
        SELECT (
            SELECT true
            FROM backfill_runs AS run
            WHERE run.status = 'finished'
                AND coalesce(run.project_id, collections.project_id) = collections.project_id
                AND (
                    collections.is_active IS NOT TRUE
                    OR coalesce(collections.created_at, run.started_at) <= run.started_at
                )
            ORDER BY run.id DESC
            LIMIT 1
        ) AS passed
    ) AS backfill
    WHERE collections.collection_id = :collection_id AND collections.project_id = :project_id
""")  # noqa: S608 - a constant


class SyncState(BaseModel):
    """Whether `project_collections` shows a collection as it was written last, as far as events show.

    `pending`: an event waits, or the collection awaits the backfill. `dead`: the newest event could not
    be applied; the next write, or a replay once its cause is fixed, brings the row up to date. `synced`:
    neither. A change that was made by hand in SQL has no event and is not seen here; finding it is the
    audit's task.
    """

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [EXAMPLE]})

    collection_id: str
    state: Literal["synced", "pending", "dead"]
    applied_version: int | None = Field(description="The version that the row shows; null before any was.")
    latest_version: int | None = Field(description="The newest version there is; null while there is none.")
    lag_ms: float = Field(description="For how long the oldest waiting event has been waiting; else 0.")
    dead_letter_id: int | None = Field(
        description="The open dead letter of the collection, which an administrator can look up; null: none."
        " With one the state is never `synced`."
    )


async def read_sync_state(
    sync: CollectionSync, caller: str, project_id: str, collection_id: str
) -> SyncState:
    """Return how far the project's collection has come; one that was deleted has a state as well.

    Raises:
        AccessDeniedError: the caller, whose e-mail address is resolved here, has no access.
        CollectionNotFoundError: the project has no such collection.

    """
    async with autocommit(sync.engine) as connection:
        user_id = await resolve_email(connection, caller)
        await require_access(connection, project_id, user_id)
        refuse_nul(collection_id)
        key = {"collection_id": collection_id, "project_id": project_id}
        state = (await connection.execute(READ_STATE, key)).one_or_none()
    if state is None:
        raise CollectionNotFoundError
    return SyncState.model_validate(state)
