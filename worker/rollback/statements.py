"""The statements of a rollback. Each reads or changes a bounded chunk, by indexes, in a table of any size."""

from sqlalchemy import text

from shared.enriched import ENRICHABLE, holds_anything
from shared.events import NO_EVENT
from shared.planner import ROLLBACK, for_transaction

# Users of the chunk's rows wait for us, so we do not wait long for others.
PREPARE = text(for_transaction(ROLLBACK | {"lock_timeout": "5s"}))
# A look changes nothing, whatever its statements are.
READ_ONLY = text("SET TRANSACTION READ ONLY")

# Until the chunk is committed no batch can stand between a guard and its row when both are taken away.
# Readers pass.
KEEP_BATCHES_OUT = text("LOCK TABLE applied_versions IN SHARE ROW EXCLUSIVE MODE")

# Finished ones too: what they brought is taken away, so nothing may rely on them any more.
CANCEL_BACKFILLS = text("""
    UPDATE backfill_runs
    SET status = 'cancelled', throttled_by = NULL, finished_at = coalesce(finished_at, clock_timestamp())
    WHERE status <> 'cancelled'
""")

# How many events are pending: each would be discarded.
COUNT_EVENTS = text("SELECT count(*) FROM outbox_events")

# What is pending at the start is up to this one. Served by outbox_events_pkey.
NEWEST_EVENT = text("SELECT max(id) FROM outbox_events")

# Served by outbox_events_pkey. What a batch has in hand at this moment is passed over.
DISCARD_EVENTS = text("""
    DELETE FROM outbox_events
    WHERE id = ANY(ARRAY(
        SELECT id FROM outbox_events
        WHERE id <= :newest_id
        ORDER BY id
        LIMIT :chunk_rows
        FOR UPDATE SKIP LOCKED
    ))
""")

HOLDS_ANYTHING = {column: holds_anything(column) for column in ENRICHABLE}
IS_ENRICHED = " OR ".join(HOLDS_ANYTHING.values())
WHAT_HOLDS = ", ".join(f"CASE WHEN {holds} THEN '{name}' END" for name, holds in HOLDS_ANYTHING.items())
IN_CHUNK = "target.id > :after_id AND target.id <= :upto_id"

# The rows that are there at the start are up to this one. Served by project_collections_pkey.
LAST_ROW = text("SELECT max(id) FROM project_collections")

# The last row of the next chunk. Served by project_collections_pkey.
NEXT_ROWS = text("""
    SELECT max(id) FROM (
        SELECT id FROM project_collections
        WHERE id > :after_id AND id <= :last_id
        ORDER BY id
        LIMIT :chunk_rows
    ) AS chunk
""")

# Served by the primary keys of project_collections and applied_versions. Whether a row is enriched is
# judged again under its lock, so what a user adds at this moment stays. Row and guard go together.
REMOVE_ROWS = text(f"""
    WITH removed AS (
        DELETE FROM project_collections AS target
        USING applied_versions AS guard
        WHERE {IN_CHUNK}
            AND guard.collection_id = target.collection_id
            AND guard.project_id = target.project_id
            AND coalesce(guard.row_id = target.id, true)
            AND NOT (guard.is_deleted OR guard.found_row OR {IS_ENRICHED})
        RETURNING target.collection_id
    )
    DELETE FROM applied_versions AS guard USING removed WHERE guard.collection_id = removed.collection_id
""")  # noqa: S608 - constants

# Served by the primary keys of project_collections, applied_versions and collections. A row without a
# guard, or one that came back after we had removed ours, is not of our making.
JUDGE_ROWS = text(f"""
    SELECT
        target.project_id,
        target.collection_id,
        CASE
            WHEN target.project_id NOT IN (legacy.project_id, coalesce(guard.project_id, '')) THEN 'link'
            WHEN coalesce(guard.project_id <> target.project_id OR guard.is_deleted OR guard.found_row, true)
                OR coalesce(guard.row_id <> target.id, false)
                THEN 'found'
            WHEN {IS_ENRICHED} THEN 'enriched'
            ELSE 'ours'
        END AS kind,
        concat_ws(', ', {WHAT_HOLDS}) AS enriched
    FROM project_collections AS target
    JOIN collections AS legacy ON legacy.collection_id = target.collection_id
    LEFT JOIN applied_versions AS guard ON guard.collection_id = target.collection_id
    WHERE {IN_CHUNK}
    ORDER BY target.id
""")  # noqa: S608 - constants

# The last guard of the next chunk. Served by applied_versions_pkey: a plan for the values at hand has no
# trace of an :after_key that is NULL.
NEXT_GUARDS = text("""
    SELECT max(collection_id) FROM (
        SELECT collection_id FROM applied_versions
        WHERE CAST(:after_key AS varchar) IS NULL OR collection_id > CAST(:after_key AS varchar)
        ORDER BY collection_id
        LIMIT :chunk_rows
    ) AS chunk
""")

# Tombstones go, what else guards no row of the target, and what guards a row of which no event was applied.
# Served by applied_versions_pkey and by the unique key of the target.
FORGET_GUARDS = text(f"""
    DELETE FROM applied_versions AS guard
    WHERE (CAST(:after_key AS varchar) IS NULL OR collection_id > CAST(:after_key AS varchar))
        AND collection_id <= :upto_key AND (version = {NO_EVENT} OR NOT EXISTS (
            SELECT FROM project_collections AS target
            WHERE target.project_id = guard.project_id AND target.collection_id = guard.collection_id
        ))
""")  # noqa: S608 - a constant
