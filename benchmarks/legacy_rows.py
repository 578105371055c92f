"""Legacy rows for a backfill, an audit or a drain: many, in 200 projects of one owner."""

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


async def insert_collections(sql: asyncpg.Connection, rows: int) -> None:
    """Insert the projects and so many active collections, without events; analysed."""
    await sql.execute(OWNER)
    await sql.execute(ROWS, rows)
    await sql.execute("VACUUM ANALYZE")
