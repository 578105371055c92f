"""Rows of both tables in every state that a backfill can meet, and what it is to do with them."""

from typing import Any

import asyncpg

from shared.projection import LEGACY_NAMES, NAMES, PAYLOAD, legacy_names_of, names_of

INSERT_COLLECTION = """
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active,
        created_at, updated_at)
    VALUES ($1, $2, 'name', $3, 'owner', $4, '2024-01-02 03:04:05.678901+00', $5)
"""
COPY_TO_TARGET = f"""
    INSERT INTO project_collections (project_id, collection_id, {NAMES})
    SELECT $2, collection_id, {LEGACY_NAMES} FROM collections WHERE collection_id = $1
"""  # noqa: S608 - constants
APPEND = f"""
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.updated', 'repair', {PAYLOAD} FROM collections WHERE collection_id = $1
"""  # noqa: S608 - constants
ADD_MANY = """
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    SELECT prefix || '-' || lpad(number::text, 7, '0'), 'p' || 1 + number % 3, 'name', 'text ' || number,
        'owner', true
    FROM generate_series(1, $2::integer) AS number, (VALUES ($1)) AS given (prefix)
"""
# Every column of a row, and which transaction wrote or locked it last.
FINGERPRINT = """
    SELECT coalesce(md5(string_agg(xmin || ' ' || xmax || ' ' || ctid || ' ' || line, '' ORDER BY line)), '')
    FROM (SELECT xmin::text, xmax::text, ctid::text, item::text AS line FROM {table} AS item) AS lines
"""
HOME_DRIFT = f"""
    SELECT collections.collection_id
    FROM collections LEFT JOIN project_collections AS home USING (project_id, collection_id)
    WHERE (is_active IS TRUE) <> (home.id IS NOT NULL)
        OR is_active AND ({names_of("home")}) IS DISTINCT FROM ({legacy_names_of("collections")})
"""  # noqa: S608 - constants
TABLES = (
    "collections",
    "project_collections",
    "outbox_events",
    "applied_versions",
    "outbox_dead_letters",
    "backfill_runs",
    "audit_runs",
    "audit_findings",
)
FIX_CHUNK_SIZE = """
    CREATE OR REPLACE FUNCTION fixed_chunk_size() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.chunk_size := ROWS; RETURN NEW; END $$;
    CREATE OR REPLACE TRIGGER fixed_chunk_size BEFORE INSERT OR UPDATE ON backfill_runs
        FOR EACH ROW EXECUTE FUNCTION fixed_chunk_size();
    UPDATE backfill_runs SET chunk_size = ROWS WHERE status IN ('running', 'paused');
"""

EXPECTED = {
    "missing": {"missing", "Missing-2", "missing_3", "missing: linked elsewhere", "pending, changed by hand"},
    "mismatched": {"text differs", "null is not empty", "created_at differs", "updated_at differs"},
    "orphaned": {"orphan", "orphan of NULL"},
}
UNTOUCHED = {
    "in sync",
    "in sync: linked elsewhere",
    "inactive",
    "inactive of NULL",
    "inactive: linked elsewhere",
    "pending",
}


async def insert_collection(
    sql: asyncpg.Connection,
    collection_id: str,
    *links: str,
    description: str | None = "text",
    is_active: bool | None = True,
) -> None:
    """Insert a collection of p1, and rows of the target that show it as it is, in these projects."""
    await sql.execute(INSERT_COLLECTION, collection_id, "p1", description, is_active, None)
    for project_id in links:
        await sql.execute(COPY_TO_TARGET, collection_id, project_id)


async def insert_mixed_rows(sql: asyncpg.Connection) -> None:
    """Insert EXPECTED and UNTOUCHED."""
    for name in ("missing", "Missing-2", "missing_3", "pending", "pending, changed by hand"):
        await insert_collection(sql, name)
    for name in EXPECTED["mismatched"] - {"null is not empty"}:
        await insert_collection(sql, name, "p1")
    await insert_collection(sql, "null is not empty", "p1", description=None)
    await insert_collection(sql, "missing: linked elsewhere", "p2")
    await insert_collection(sql, "in sync", "p1")
    await insert_collection(sql, "in sync: linked elsewhere", "p1", "p2", "p3")
    await insert_collection(sql, "inactive", is_active=False)
    await insert_collection(sql, "inactive of NULL", is_active=None)
    await insert_collection(sql, "inactive: linked elsewhere", "p2", is_active=False)
    await insert_collection(sql, "orphan", "p1", "p2", is_active=False)
    await insert_collection(sql, "orphan of NULL", "p1", is_active=None)
    for name in ("pending", "pending, changed by hand"):
        await sql.execute(APPEND, name)
    await change_target(sql, "text differs", "research_context = 'another'")
    await change_target(sql, "null is not empty", "research_context = ''")
    await change_target(sql, "created_at differs", "created_at = created_at + interval '1 microsecond'")
    await change_target(sql, "updated_at differs", "updated_at = '2024-01-02 03:04:05+00'")
    await sql.execute(
        "UPDATE collections SET description = 'by hand' WHERE collection_id = 'pending, changed by hand'"
    )


async def change_target(sql: asyncpg.Connection, collection_id: str, assignment: str) -> None:
    await sql.execute(f"UPDATE project_collections SET {assignment} WHERE collection_id = $1", collection_id)  # noqa: S608 - a constant


async def insert_many(sql: asyncpg.Connection, prefix: str, count: int) -> None:
    """Insert active collections of three projects, none of them in the target."""
    await sql.execute(ADD_MANY, prefix, count)


async def enqueued(sql: asyncpg.Connection) -> dict[str, int]:
    """Return how many events of backfills each collection has in the outbox."""
    rows = await sql.fetch(
        "SELECT aggregate_id, count(*) FROM outbox_events WHERE source = 'backfill' GROUP BY 1"
    )
    return dict(rows)


async def links_to_other_projects(sql: asyncpg.Connection) -> list[Any]:
    """Return the rows that are not ours to touch, as they are."""
    return list(
        await sql.fetch(
            "SELECT target.* FROM project_collections AS target JOIN collections USING (collection_id)"
            " WHERE target.project_id <> collections.project_id ORDER BY target.id"
        )
    )


async def home_drift(sql: asyncpg.Connection) -> list[str]:
    """Return the collections whose home row is missing, orphaned or different; links do not matter."""
    return [row["collection_id"] for row in await sql.fetch(HOME_DRIFT)]


async def locks(sql: asyncpg.Connection) -> dict[str, int]:
    """Return which transaction locked or changed each collection last."""
    return dict(await sql.fetch("SELECT collection_id, xmax::text::bigint FROM collections"))


async def fingerprints(sql: asyncpg.Connection) -> dict[str, str]:
    """Return for each table a value that changes when any row is written or locked."""
    return {table: await sql.fetchval(FINGERPRINT.format(table=table)) for table in TABLES}


async def fix_chunk_size(sql: asyncpg.Connection, rows: int) -> None:
    """Make every chunk of every run so large, whatever it would adapt to."""
    await sql.execute(FIX_CHUNK_SIZE.replace("ROWS", str(rows)))
