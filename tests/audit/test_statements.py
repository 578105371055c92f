"""What a slice costs the database: a fixed number of statements, and a snapshot that ends with it."""

from collections import Counter
from collections.abc import Mapping
from typing import cast

import asyncpg
import pytest
from sqlalchemy import AdaptedConnection, event
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.audit_runs import AuditRun
from tests.audit.pairs import audited, put_synced
from worker.audit.comparison import ALONE, TALLY, prepare
from worker.custody import Custody

SNAPSHOTS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'test'
        AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
"""

EAGER_FOR_WORKERS = """
    SET LOCAL min_parallel_table_scan_size = 0;
    SET LOCAL parallel_setup_cost = 0;
    SET LOCAL parallel_tuple_cost = 0.1
"""


async def counted(engine: AsyncEngine, slices: int, requested_by: str = "command") -> Counter[str]:
    """Return the statements that an audit sent, counted by their text."""
    sent: Counter[str] = Counter()

    def listen(connection: AdaptedConnection, _record: object) -> None:
        driver = cast("asyncpg.Connection", connection.driver_connection)
        driver.add_query_logger(lambda record: sent.update([record.query.strip()]))

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.update([statement.strip()])  # SQLAlchemy prepares its own, which the driver does not log

    await engine.dispose()
    event.listen(engine.sync_engine, "connect", listen)
    event.listen(engine.sync_engine, "before_cursor_execute", note)
    await audited(engine, slices=slices, requested_by=requested_by)
    event.remove(engine.sync_engine, "connect", listen)
    event.remove(engine.sync_engine, "before_cursor_execute", note)
    await engine.dispose()
    return sent


async def test_the_number_of_statements_depends_on_the_slices_alone(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_synced(seeded, 40)
    four, eight = await counted(engine, 4), await counted(engine, 8)
    await put_synced_more(seeded)
    four_of_many = await counted(engine, 4)

    assert four.total() == four_of_many.total()
    # BEGIN, settings, the statement, COMMIT, and the run's progress in a transaction of its own; in
    # the canary's transaction the statement and the listing.
    assert eight.total() - four.total() == 4 * (4 + 3 + 2)
    assert four[TALLY.strip()] == 2 * 4


async def test_only_audits_of_the_schedule_leave_the_other_cores_alone(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_synced(seeded, 40)

    assert (await counted(engine, 4))[ALONE] == 0
    assert (await counted(engine, 4, requested_by="schedule"))[ALONE] == 4


async def put_synced_more(connection: asyncpg.Connection) -> None:
    await connection.execute("DELETE FROM collections")
    await put_synced(connection, 4_000)


async def test_no_snapshot_outlives_its_slice(
    engine: AsyncEngine, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_synced(seeded, 40)
    await seeded.execute("DELETE FROM project_collections WHERE id % 5 = 0")
    held = []
    write = Custody.write

    async def look(self: Custody[AuditRun], values: Mapping[str, object]) -> AuditRun:
        held.append(await seeded.fetchval(SNAPSHOTS))
        return await write(self, values)

    monkeypatch.setattr(Custody, "write", look)

    await audited(engine, slices=8)

    assert held == [0] * 9


async def explained(connection: asyncpg.Connection, *arguments: object) -> str:
    async with connection.transaction():
        await prepare(connection)
        await connection.execute(EAGER_FOR_WORKERS)
        return "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {TALLY}", *arguments))


async def test_pairs_are_counted_where_they_are_joined(seeded: asyncpg.Connection) -> None:
    await put_synced(seeded, 4_000)
    await seeded.execute("ANALYZE")

    plan = await explained(seeded, 4, 2, None)

    assert "Hash Full Join" in plan
    assert plan.index("Partial Aggregate") < plan.index("Hash Full Join")  # not: a Gather of all pairs
    assert "SubPlan" not in plan  # a subquery for each pair would forbid it


async def test_one_project_of_many_is_reached_by_indexes(seeded: asyncpg.Connection) -> None:
    await seeded.execute("""
        INSERT INTO projects (project_id, project_name, owner_user_id)
        SELECT 'q' || n, 'name', 'owner' FROM generate_series(1, 1000) n;
        INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
        SELECT 'c' || n, 'q' || 1 + n % 1000, 'name', 'owner', true FROM generate_series(1, 10000) n
    """)
    await put_synced(seeded, 0)
    await seeded.execute("ANALYZE")

    plan = await explained(seeded, 1, 0, "q7")

    assert "Seq Scan on collections" not in plan
    assert "Seq Scan on project_collections" not in plan
