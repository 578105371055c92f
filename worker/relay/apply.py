"""Applying events to `project_collections`, set by set, behind the version guard."""

from collections.abc import Sequence

import asyncpg

from shared.projection import NAMES, VALUES, names_of

# Served by outbox_events_pkey, applied_versions_pkey and the unique key of the target. It lets
# through only versions higher than the one applied last, and holds the collection's lock until
# commit; in key order, so that two workers cannot wait for each other. A deletion stays as a
# tombstone, and leaves no home: a row that is there later is a link that others made.
# `found_row` remembers, for a rollback, that the home row is not our making: it was there before our first
# event for it, and we have not removed it since; or it is another one than we left there.
GUARD = """
    INSERT INTO applied_versions AS guard
        (collection_id, version, project_id, is_deleted, found_row, row_id, appended_at, dated_version)
    SELECT
        aggregate_id,
        outbox_events.id,
        payload ->> 'project_id',
        event_type = 'collection.deleted',
        target.id IS NOT NULL,
        target.id,
        created_at,
        outbox_events.id
    FROM outbox_events
    LEFT JOIN LATERAL (
        SELECT id
        FROM project_collections
        WHERE project_id = payload ->> 'project_id' AND collection_id = aggregate_id
        LIMIT 1
    ) AS target ON true
    WHERE outbox_events.id = ANY($1)
    ORDER BY aggregate_id
    ON CONFLICT (collection_id) DO UPDATE SET
        version = excluded.version,
        project_id = excluded.project_id,
        previous_project_id = CASE
            WHEN NOT guard.is_deleted THEN nullif(guard.project_id, excluded.project_id)
        END,
        is_deleted = excluded.is_deleted,
        found_row = CASE
            WHEN guard.is_deleted OR guard.project_id <> excluded.project_id THEN excluded.found_row
            ELSE guard.found_row OR coalesce(guard.row_id <> excluded.row_id, false)
        END,
        row_id = coalesce(
            excluded.row_id,
            CASE WHEN NOT guard.is_deleted AND guard.project_id = excluded.project_id THEN guard.row_id END
        ),
        appended_at = excluded.appended_at,
        dated_version = excluded.dated_version
    WHERE guard.version < excluded.version
    RETURNING version, is_deleted, is_deleted OR previous_project_id IS NOT NULL, row_id
"""

# Served by the primary keys of outbox_events, applied_versions and the target, and by the target's
# unique key. Takes away the home row of what was deleted, and the former home row of what moved. The
# limits change no result: they are what keeps PostgreSQL from reading the whole target first, which it
# believes to be empty until it is analysed.
RETIRE_ROWS = """
    WITH found AS MATERIALIZED (
        SELECT target.id
        FROM outbox_events AS event
        CROSS JOIN LATERAL (
            SELECT * FROM applied_versions WHERE collection_id = event.aggregate_id LIMIT 1
        ) AS guard
        CROSS JOIN LATERAL (
            VALUES (CASE WHEN guard.is_deleted THEN guard.project_id END), (guard.previous_project_id)
        ) AS former (project_id)
        CROSS JOIN LATERAL (
            SELECT id
            FROM project_collections
            WHERE project_id = former.project_id AND collection_id = event.aggregate_id
            LIMIT 1
        ) AS target
        WHERE event.id = ANY($1)
    ), retired AS (
        DELETE FROM project_collections WHERE id = ANY(ARRAY(SELECT id FROM found)) RETURNING id
    )
    SELECT (SELECT count(*) FROM found) AS found, (SELECT count(*) FROM retired) AS retired
"""

# Served by the primary keys of the target, applied_versions and outbox_events; the limits are as in
# RETIRE_ROWS. $1 rows that the guard found. Writes the projected columns of the home row and nothing else:
# tags, mappings and links to other projects belong to later phases. Each row gets the state of the version
# that its guard holds.
UPDATE_ROWS = f"""
    UPDATE project_collections AS target
    SET ({NAMES}) = (
        SELECT {VALUES}
        FROM (
            SELECT version FROM applied_versions WHERE collection_id = target.collection_id LIMIT 1
        ) AS guard
        CROSS JOIN LATERAL (SELECT payload FROM outbox_events WHERE id = guard.version LIMIT 1) AS event
    )
    WHERE target.id = ANY($1)
    RETURNING target.id
"""  # noqa: S608 - constants

# Served by outbox_events_pkey, applied_versions_pkey and the target's unique key. $1 versions of which the
# guard found no row, or one that is gone: only these draw from the target's sequence, which the legacy
# service draws from too. What is inserted is ours, whatever the guard saw before it had to wait. The conflict
# is with a row that came in between.
INSERT_ROWS = f"""
    WITH inserted AS (
        INSERT INTO project_collections (project_id, collection_id, {NAMES})
        SELECT payload ->> 'project_id', aggregate_id, {VALUES}
        FROM outbox_events
        WHERE id = ANY($1)
        ORDER BY aggregate_id
        ON CONFLICT (project_id, collection_id) DO UPDATE SET ({NAMES}) = ROW ({names_of("excluded")})
        RETURNING id, collection_id
    )
    UPDATE applied_versions AS guard SET row_id = inserted.id, found_row = false
    FROM inserted WHERE guard.collection_id = inserted.collection_id
"""  # noqa: S608 - constants

# Served by outbox_events_pkey and applied_versions_pkey.
OVERTAKEN = """
    SELECT
        event.id,
        coalesce(guard.version >= event.id, false) AS is_overtaken,
        coalesce(guard.dated_version = guard.version AND event.created_at > guard.appended_at, false)
            AS is_newer
    FROM outbox_events AS event
    LEFT JOIN LATERAL (
        SELECT * FROM applied_versions WHERE collection_id = event.aggregate_id LIMIT 1
    ) AS guard ON true
    WHERE event.id = ANY($1)
"""


class UnappliedError(Exception):
    """The target took another number of rows than the guard let through; the batch must not commit."""


async def apply(connection: asyncpg.Connection, ids: Sequence[int]) -> set[int]:
    """Bring the target to the state of these events and return the ids that the guard let through.

    The events must be claimed in this transaction, at most one of each collection. The rest of the
    ids are stale: a newer event of their collection was applied before.

    The target is written in statements of its own: each sees what another worker committed while the
    guard waited for that worker's lock. In one statement with the guard they would not.

    Raises:
        asyncpg.PostgresError: PostgreSQL refused a row; nothing of this call may be kept.
        UnappliedError: the target silently dropped a row, or kept one that was to go.

    """
    passed = await connection.fetch(GUARD, ids)
    retiring = [version for version, _, retires, _ in passed if retires]
    if retiring:
        ((found, retired),) = await connection.fetch(RETIRE_ROWS, retiring)
        if found != retired:
            raise UnappliedError(f"{found} rows to remove, but the target gave up {retired}")
    living = {version: row_id for version, is_deleted, _, row_id in passed if not is_deleted}
    there = [row_id for row_id in living.values() if row_id is not None]
    updated = {row_id for (row_id,) in await connection.fetch(UPDATE_ROWS, there)} if there else set()
    missing = [version for version, row_id in living.items() if row_id not in updated]
    if missing:
        status = await connection.execute(INSERT_ROWS, missing)
        if status != f"UPDATE {len(missing)}":
            raise UnappliedError(f"{len(missing)} rows to write, but the target took: {status}")
    return {version for version, *_ in passed}


async def find_misnumbered(connection: asyncpg.Connection, stale: Sequence[int]) -> set[int]:
    """Return those of these stale events that were appended after what was applied of their collection.

    Raises:
        UnappliedError: of one the guard holds no version as high: it was not let through, and is not stale.

    """
    looked_at = await connection.fetch(OVERTAKEN, stale)
    if refused := [event_id for event_id, is_overtaken, _ in looked_at if not is_overtaken]:
        raise UnappliedError(f"{len(refused)} events that the guard neither took nor had overtaken")
    return {event_id for event_id, _, is_newer in looked_at if is_newer}
