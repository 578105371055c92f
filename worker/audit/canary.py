"""The canary: differences of every kind, planted where only the comparison can see them.

Temporary tables shadow the real ones for one transaction, so the very statements of the audit run on
known rows. A comparison that is blind to something proves nothing about the real tables.
"""

from dataclasses import replace

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.database import driver_connection
from shared.postgres.faults import reason
from worker.audit.comparison import Slice, Tally, compare, differences, prepare

# Of each table, what is compared, with its type and collation; what else a column may demand is nobody's
# concern here. The role's or the database's own search path may have temporary tables last. Statements
# prepared in this session before would still mean the real tables: DISCARD PLANS.
SHADOW = """
    CREATE TEMPORARY TABLE collections ON COMMIT DROP AS
        SELECT collection_id, project_id, description, is_active, created_at, updated_at
        FROM collections WITH NO DATA;
    CREATE TEMPORARY TABLE project_collections ON COMMIT DROP AS
        SELECT collection_id, project_id, research_context, created_at, updated_at
        FROM project_collections WITH NO DATA;
    CREATE TEMPORARY TABLE outbox_events ON COMMIT DROP AS
        SELECT aggregate_id, id, lane FROM outbox_events WITH NO DATA;
    CREATE TEMPORARY TABLE applied_versions ON COMMIT DROP AS
        SELECT collection_id, version FROM applied_versions WITH NO DATA;
    SELECT set_config('search_path', 'pg_temp, ' || current_setting('search_path'), true);
    DISCARD PLANS
"""
LONGEST_COMPLAINT = 500

PLANT_LEGACY = """
    INSERT INTO pg_temp.collections
        (collection_id, project_id, is_active, description, created_at, updated_at)
    SELECT 'canary ' || name, $1::varchar || home, is_active,
        description, '2001-02-03 04:05:06.789012Z', '2001-02-03 04:05:06.789012Z'
    FROM (VALUES
        ('in sync', '', true, 'text'),
        ('in sync, empty', '', true, NULL),
        ('inactive', '', false, 'text'),
        ('linked from another project', '', true, 'text'),
        ('linked from here', ' other', true, 'text'),
        ('missing', '', true, 'text'),
        ('research_context', '', true, 'text'),
        ('research_context, empty', '', true, NULL),
        ('created_at', '', true, 'text'),
        ('updated_at', '', true, 'text'),
        ('orphaned', '', false, 'text'),
        ('orphaned, NULL', '', NULL, 'text'),
        ('missing, pending', '', true, 'text'),
        ('mismatched, pending', '', true, 'text'),
        ('orphaned, pending', '', false, 'text'),
        ('missing, its event too old', '', true, 'text'),
        ('missing, its event of an unknown version', '', true, 'text')
    ) AS planted (name, home, is_active, description)
"""
PLANT_TARGET = """
    INSERT INTO pg_temp.project_collections
        (collection_id, project_id, research_context, created_at, updated_at)
    SELECT 'canary ' || name, $1::varchar || project, research_context,
        '2001-02-03 04:05:06.789012Z'::timestamptz + created_later * interval '1 microsecond',
        '2001-02-03 04:05:06.789012Z'::timestamptz + updated_later * interval '1 microsecond'
    FROM (VALUES
        ('in sync', '', 'text', 0, 0),
        ('in sync, empty', '', NULL, 0, 0),
        ('linked from another project', '', 'text', 0, 0),
        ('linked from another project', ' other', 'remark', 7, 7),
        ('linked from here', ' other', 'text', 0, 0),
        ('linked from here', '', 'remark', 7, 7),
        ('research_context', '', 'Text', 0, 0),
        ('research_context, empty', '', '', 0, 0),
        ('created_at', '', 'text', 1, 0),
        ('updated_at', '', 'text', 0, -1),
        ('orphaned', '', 'text', 0, 0),
        ('orphaned, NULL', '', 'text', 0, 0),
        ('orphaned, no collection', '', 'text', 0, 0),
        ('mismatched, pending', '', 'remark', 0, 0),
        ('orphaned, pending', '', 'text', 0, 0)
    ) AS planted (name, project, research_context, created_later, updated_later)
"""
PLANT_EVENTS = """
    INSERT INTO pg_temp.outbox_events (aggregate_id, id, lane)
    SELECT 'canary ' || name, 7, lane
    FROM (VALUES
        ('in sync', 0),
        ('missing, pending', 0),
        ('mismatched, pending', 1),
        ('orphaned, pending', 2),
        ('missing, its event too old', 0),
        ('missing, its event of an unknown version', 1000)
    ) AS planted (name, lane)
"""
PLANT_GUARDS = """
    INSERT INTO pg_temp.applied_versions (collection_id, version)
    VALUES ('canary mismatched, pending', 6), ('canary missing, its event too old', 7)
"""

PLANTED = {
    "canary missing": "missing",
    "canary missing, its event too old": "missing",
    "canary research_context": "mismatched",
    "canary research_context, empty": "mismatched",
    "canary created_at": "mismatched",
    "canary updated_at": "mismatched",
    "canary orphaned": "orphaned",
    "canary orphaned, NULL": "orphaned",
    "canary orphaned, no collection": "orphaned",
}
EXPECTED = Tally(
    planned=16, compared=16, active_collections=12, home_rows=11,
    missing=2, mismatched=4, orphaned=3, pending=4, unclaimable=1,
)  # fmt: skip
EXPECTED_OF_ALL = replace(EXPECTED, planned=17, compared=17, active_collections=13, home_rows=12)


async def blindness(engine: AsyncEngine, slices: int, project_id: str | None) -> str | None:
    """Run the comparison of such an audit on planted rows; return what it got wrong, or None.

    It touches no real table: all is gone when its transaction ends.
    """
    async with driver_connection(engine) as connection, connection.transaction():
        try:
            await connection.execute(SHADOW)
        except asyncpg.InsufficientPrivilegeError:
            return "The canary needs temporary tables: GRANT TEMPORARY ON DATABASE to this user."
        except asyncpg.RaiseError as error:
            return f"The canary needs temporary tables, which an event trigger refuses: {reason(error)}."
        await _plant(connection, "canary" if project_id is None else project_id)
        return await _judge(connection, slices, project_id)


async def _plant(connection: asyncpg.Connection, project_id: str) -> None:
    await connection.execute(PLANT_LEGACY, project_id)
    await connection.execute(PLANT_TARGET, project_id)
    await connection.execute(PLANT_EVENTS)
    await connection.execute(PLANT_GUARDS)


async def _judge(connection: asyncpg.Connection, slices: int, project_id: str | None) -> str | None:
    await prepare(connection)
    tally = Tally()
    found: dict[str, str] = {}
    for number in range(slices):
        scope = Slice(slices, number, project_id)
        tally += await compare(connection, scope)
        found |= {row["collection_id"]: row["kind"] for row in await differences(connection, scope)}
    expected = EXPECTED_OF_ALL if project_id is None else EXPECTED
    if found != PLANTED:
        wrong = sorted(found.items() ^ PLANTED.items())
        complaint = f"The canary's differences were not found as planted, {len(wrong)} of them: {dict(wrong)}"
        return complaint[:LONGEST_COMPLAINT]
    if tally != expected:
        return f"The canary's pairs were not counted as planted: {tally}, not {expected}."
    return None
