"""Legacy rows by the million and the target that shows them: what bulk work is measured on and checked by."""

import asyncpg

OWNER = """
    INSERT INTO users (user_id, username, email, first_name, last_name, category, role, institution,
        subject_area, how_heard_about_us)
    VALUES ('bulk', 'bulk', 'bulk', '', '', '', '', '', '', '');
    INSERT INTO projects (project_id, project_name, owner_user_id)
    SELECT 'bulk-' || number, '', 'bulk' FROM generate_series(0, 199) AS number
"""
ROWS = """
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    SELECT gen_random_uuid()::text, 'bulk-' || number % 200, 'bulk', 'What collection ' || number || ' holds',
        'bulk', true
    FROM generate_series(1, $1::integer) AS number
"""
BARE_INSERT = """
    INSERT INTO project_collections (project_id, collection_id, research_context, created_at, updated_at)
    SELECT project_id, collection_id, description, created_at, updated_at FROM collections WHERE is_active
"""
BARE_COUNT = """
    SELECT count(*)
    FROM (SELECT * FROM collections WHERE is_active) AS legacy
    FULL JOIN project_collections AS target
        ON target.collection_id = legacy.collection_id AND target.project_id = legacy.project_id
    WHERE (legacy.description, legacy.created_at, legacy.updated_at)
        IS DISTINCT FROM (target.research_context, target.created_at, target.updated_at)
"""
EMPTY = """
    TRUNCATE project_collections, outbox_events, applied_versions, outbox_dead_letters, backfill_runs,
        audit_runs CASCADE
"""
UNCHECKED = "SET session_replication_role = replica"  # foreign keys, as a restore does; they hold
CHECKED = "SET session_replication_role = origin"


async def insert_collections(sql: asyncpg.Connection, rows: int) -> None:
    """Insert the projects and `rows` active collections, without events; analysed."""
    await sql.execute(OWNER)
    await sql.execute(UNCHECKED)
    await sql.execute(ROWS, rows)
    await sql.execute(CHECKED)
    await sql.execute("VACUUM ANALYZE")


async def make_rows(sql: asyncpg.Connection, rows: int) -> None:
    """Make `collections` hold this many active rows, of 200 projects, and nothing else; empty the target."""
    await sql.execute("TRUNCATE users CASCADE")
    await insert_collections(sql, rows)
    await empty(sql)


async def empty(sql: asyncpg.Connection) -> None:
    """Make the target and our tables as they were before the first run, with nothing left to tidy up."""
    await sql.execute(EMPTY)
    await tidy(sql)


async def tidy(sql: asyncpg.Connection) -> None:
    """Let nothing that was done before be paid for by what is measured next."""
    await sql.execute("VACUUM ANALYZE")
    await sql.execute("CHECKPOINT")


async def fill_target(sql: asyncpg.Connection) -> None:
    """Let the target show every legacy row, without an event."""
    await sql.execute(UNCHECKED)
    await sql.execute(BARE_INSERT)
    await sql.execute(CHECKED)
    await tidy(sql)


async def differing(sql: asyncpg.Connection) -> int:
    """Return how many rows are in one table only, or not the same in both."""
    # Not `fetchval`: it asks for one row at most, and then PostgreSQL uses no parallel workers.
    [row] = await sql.fetch(BARE_COUNT)
    return int(row[0])
