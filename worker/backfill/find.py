"""Which rows the target does not show as they are: what a chunk enqueues, and a dry run counts."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.events import EventType
from shared.planner import CHUNKS, for_transaction
from shared.projection import LEGACY_NAMES, PAYLOAD, legacy_names_of, names_of

# A chunk holds the rows that it enqueues, and their writers wait: it must not wait long itself.
LOCK_TIMEOUT = "500ms"

# Its commit need not wait for the disk: what a crash of the server takes back, it takes back whole, cursor
# and events, and the run goes on from there.
TAKEN_BACK_WHOLE = {"synchronous_commit": "off"}

# Which of the next rows the target does not show as they are, in one snapshot. Keys are compared and
# ordered by the database alone. Served by collections_pkey; for each row by
# project_collections_project_id_collection_id_key (LATERAL: never by a scan of the whole table), for each
# that differs by outbox_events_of_aggregate: what the newest pending event shows is on its way; and for each
# that does not by applied_versions_pkey. A plan for the values at hand has no trace of a cursor or a project
# that is NULL.
FIND = text(f"""
    WITH chunk AS MATERIALIZED (
        SELECT collection_id, project_id, row_id, CASE WHEN kind IS NOT NULL AND (
            SELECT (event.event_type = '{EventType.DELETED}') <> is_active AND event.payload = state
            FROM outbox_events AS event
            WHERE event.aggregate_id = collection_id
            ORDER BY event.id DESC
            LIMIT 1
        ) IS NOT TRUE THEN kind END AS kind, CASE WHEN is_active AND kind IS NULL THEN (
            SELECT version FROM applied_versions AS guard
            WHERE guard.collection_id = compared.collection_id
            LIMIT 1
        ) IS NULL END AS is_unguarded
        FROM (
            SELECT collection_id, project_id, row_id, is_active, {PAYLOAD} AS state, CASE
                WHEN is_active AND row_id IS NULL THEN 'missing'
                WHEN is_active AND is_different THEN 'mismatched'
                WHEN NOT is_active AND row_id IS NOT NULL THEN 'orphaned'
            END AS kind
            FROM (
                SELECT collection_id, project_id, is_active IS TRUE AS is_active, {LEGACY_NAMES}
                FROM collections
                WHERE collection_id <= CAST(:end_key AS varchar)
                    AND (CAST(:cursor_key AS varchar) IS NULL OR collection_id > CAST(:cursor_key AS varchar))
                    AND (CAST(:project_id AS varchar) IS NULL OR project_id = CAST(:project_id AS varchar))
                ORDER BY collection_id
                LIMIT CAST(:row_limit AS integer)
            ) AS legacy LEFT JOIN LATERAL (
                SELECT id AS row_id,
                    ({names_of("target")}) IS DISTINCT FROM ({legacy_names_of("legacy")}) AS is_different
                FROM project_collections AS target
                WHERE target.project_id = legacy.project_id
                    AND target.collection_id = legacy.collection_id
                LIMIT 1
            ) AS home ON true
        ) AS compared
    )
    SELECT
        count(*) AS rows,
        max(collection_id) AS last_key,
        coalesce(array_agg(collection_id) FILTER (WHERE kind = 'missing'), '{{}}') AS missing,
        coalesce(array_agg(collection_id) FILTER (WHERE kind = 'mismatched'), '{{}}') AS mismatched,
        coalesce(array_agg(collection_id) FILTER (WHERE kind = 'orphaned'), '{{}}') AS orphaned,
        coalesce(array_agg(collection_id) FILTER (WHERE is_unguarded), '{{}}') AS unguarded,
        coalesce(array_agg(project_id) FILTER (WHERE is_unguarded), '{{}}') AS homes,
        coalesce(array_agg(row_id) FILTER (WHERE is_unguarded), '{{}}') AS row_ids
    FROM chunk
""")  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class Scope:
    """Which rows a run looks at: those of one home project or of all, up to a key; None: no rows."""

    project_id: str | None
    end_key: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a chunk's rows need: how many were read, the last key, and the keys of each kind.

    unguarded: what is in sync although no event of it was ever applied, so that it has no guard. homes,
    row_ids: the home project and the target's row of each of these.
    """

    rows: int
    last_key: str | None
    missing: Sequence[str]
    mismatched: Sequence[str]
    orphaned: Sequence[str]
    unguarded: Sequence[str]
    homes: Sequence[str]
    row_ids: Sequence[int]


async def prepare(connection: AsyncConnection) -> None:
    """Set, for this transaction, how statements are planned and how long they wait for a lock."""
    settings = CHUNKS | TAKEN_BACK_WHOLE | {"lock_timeout": LOCK_TIMEOUT}
    await connection.execute(text(for_transaction(settings)))


async def find(connection: AsyncConnection, scope: Scope, cursor_key: str | None, row_limit: int) -> Found:
    """Read the next rows of the scope after the cursor and return which need an event; writes nothing.

    The transaction must be prepared.
    """
    values = {
        "end_key": scope.end_key,
        "project_id": scope.project_id,
        "cursor_key": cursor_key,
        "row_limit": row_limit,
    }
    return Found(*(await connection.execute(FIND, values)).one())
