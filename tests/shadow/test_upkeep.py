"""Workers forget comparisons of lists after thirty days."""

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.shadow import ShadowUpkeep

OLD_AND_NEW = """
    INSERT INTO shadow_counts (epoch, minute)
    SELECT 1, now() - days * interval '1 day' FROM unnest(ARRAY[29, 31]) AS days;
    INSERT INTO shadow_findings (project_id, collection_id, kind, epoch, found_at)
    SELECT 'p', days::text, 'missing', 1, now() - days * interval '1 day' FROM unnest(ARRAY[29, 31]) AS days;
"""
LEFT = """
    SELECT array_agg(extract(days FROM now() - at)::int)
    FROM (SELECT minute AS at FROM shadow_counts UNION ALL SELECT found_at FROM shadow_findings) AS kept
"""


async def test_counts_and_findings_are_removed_after_thirty_days_and_no_sooner(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute(OLD_AND_NEW)
    upkeep = ShadowUpkeep(engine)
    await upkeep.tend()
    assert await sql.fetchval(LEFT) == [29, 29]
    await sql.execute("UPDATE shadow_counts SET minute = now() - interval '31 days'")
    await upkeep.tend()  # not again within the hour
    assert await sql.fetchval(LEFT) == [31, 29]
