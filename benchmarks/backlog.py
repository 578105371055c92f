"""A backlog: legacy rows, and the events of how they came to be, committed at one moment."""

import asyncpg

from benchmarks.bench import require

OWNER = """
    INSERT INTO users (user_id, username, email, first_name, last_name, category, role, institution,
        subject_area, how_heard_about_us)
    VALUES ('bulk', 'bulk', 'bulk', '', '', '', '', '', '', '')
    ON CONFLICT DO NOTHING;
    INSERT INTO projects (project_id, project_name, owner_user_id)
    SELECT 'bulk-' || number, '', 'bulk' FROM generate_series(0, 199) AS number
    ON CONFLICT DO NOTHING
"""
EMPTY = """
    TRUNCATE project_collections, outbox_events, outbox_dead_letters, applied_versions, backfill_runs,
        audit_runs, collections CASCADE
"""
# Of ten events six are creations, three update anything that was created before, and one deletes the sixth
# of what was created 50 events before. Nothing is written after its deletion.
MIXED = """
    CREATE TEMPORARY TABLE history ON COMMIT DROP AS
    SELECT
        number,
        done,
        md5('key ' || CASE done
            WHEN 'created' THEN number
            WHEN 'updated' THEN abs(hashint8(number)) % (ten + 1) * 10 + number % 5
            ELSE (ten - 5) * 10 + 5
        END)::uuid::text AS key
    FROM generate_series(0, $1 - 1) AS number
    CROSS JOIN LATERAL (SELECT number / 10 AS ten, number % 10 AS place) AS parts
    CROSS JOIN LATERAL (SELECT CASE
        WHEN place < 6 THEN 'created' WHEN place < 9 OR ten < 5 THEN 'updated' ELSE 'deleted'
    END AS done) AS kinds
"""
# Many writes of few rows, in turn.
HOT = """
    CREATE TEMPORARY TABLE history ON COMMIT DROP AS
    SELECT
        number,
        CASE WHEN number < $2 THEN 'created' WHEN number % 50 = 49 THEN 'deleted' ELSE 'updated' END AS done,
        md5('hot ' || number % $2)::uuid::text AS key
    FROM generate_series(0, $1 - 1) AS number
"""
LEGACY = """
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active,
        created_at, updated_at)
    SELECT DISTINCT ON (key)
        key,
        'bulk-' || abs(hashtext(key)) % 200,
        'bulk',
        'What was written as ' || number,
        'bulk',
        done <> 'deleted',
        timestamptz '2026-01-01Z',
        timestamptz '2026-01-01Z' + interval '1 ms' * number
    FROM history
    ORDER BY key, number DESC
"""
EVENTS = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT key, 'collection.' || done, 'api', jsonb_build_object(
        'project_id', 'bulk-' || abs(hashtext(key)) % 200,
        'research_context', 'What was written as ' || number,
        'created_at', timestamptz '2026-01-01Z',
        'updated_at', timestamptz '2026-01-01Z' + interval '1 ms' * number)
    FROM history
    ORDER BY number
"""
DIFFERENT = """
    SELECT count(*)
    FROM (SELECT * FROM collections WHERE is_active) AS legacy
    FULL JOIN project_collections AS target USING (project_id, collection_id)
    WHERE (legacy.description, legacy.created_at, legacy.updated_at)
        IS DISTINCT FROM (target.research_context, target.created_at, target.updated_at)
"""


async def empty(sql: asyncpg.Connection) -> None:
    """Leave no collection and no event; the tables are as new, the disk at rest."""
    await sql.execute(EMPTY)
    await sql.execute(OWNER)
    await sql.execute("VACUUM ANALYZE")
    await sql.execute("CHECKPOINT")


async def append_mixed(sql: asyncpg.Connection, events: int) -> None:
    """Commit live events, 60 % creations, 30 % updates and 10 % deletions, and their legacy rows."""
    await _append(sql, MIXED, events)


async def append_hot(sql: asyncpg.Connection, events: int, keys: int) -> None:
    """Commit live events of `keys` collections, and their legacy rows."""
    await _append(sql, HOT, events, keys)


async def _append(sql: asyncpg.Connection, history: str, *numbers: int) -> None:
    async with sql.transaction():
        await sql.execute(history, *numbers)
        await sql.execute(LEGACY)
        await sql.execute(EVENTS)


async def require_agreement(sql: asyncpg.Connection) -> None:
    """Make sure that no event is left or dead, and that the target shows what the legacy table holds.

    Raises:
        LocalError: it is not so.

    """
    require(not await sql.fetchval("SELECT count(*) FROM outbox_events"), "every event was settled")
    require(not await sql.fetchval("SELECT count(*) FROM outbox_dead_letters"), "no event died")
    wrong = await sql.fetchval(DIFFERENT)
    require(not wrong, f"the target shows what the legacy table holds; {wrong} rows differ")
