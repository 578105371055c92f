"""However long the tables are, a comparison reads its project's rows, and each by an index."""

from collections.abc import Iterator
from typing import Any

import asyncpg

from shared.phase.comparison import COMPARE, LOOK
from shared.phase.fall_back import FALL_BACK
from shared.phase.phases import Phase
from tests.api.test_plans import FILL
from tests.shadow.situations import turn

MANY = """
    INSERT INTO project_collections (project_id, collection_id, research_context)
    SELECT project_id, collection_id, 'other' FROM collections;
    INSERT INTO project_collections (project_id, collection_id)
    SELECT 'p1', 'c' || n FROM generate_series(1, 40) n;
"""
MOST_READ = 44  # the project's four collections, the forty links, and of each what is asked for
STATEMENTS = (
    (LOOK, ()),
    (COMPARE, ("p1", 2000)),
    (FALL_BACK, (1, "test", "why")),
)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


async def test_no_statement_reads_what_is_not_its_own(
    sql: asyncpg.Connection, comparing: asyncpg.Connection
) -> None:
    await sql.execute(FILL)
    await sql.execute(MANY)
    await turn(sql, Phase.READS_MOVED)
    for statement, values in STATEMENTS:
        [explained] = await comparing.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *values)
        read = [node for node in nodes(explained["Plan"]) if node["Node Type"].endswith("Scan")]
        of_tables = [node for node in read if "Relation Name" in node]
        assert of_tables
        for node in of_tables:
            assert node["Node Type"] != "Seq Scan", explained
            assert node["Actual Rows"] * node["Actual Loops"] <= MOST_READ, explained
