"""A chunk costs the same wherever it lies and however long the tables are."""

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.backfill_runs import BackfillOptions
from shared.lanes import LOWEST_KNOWN_LANE
from tests.backfill.driving import chunk_of, started, take
from tests.engines import COUNTS_AT_ONCE
from worker.backfill.pending import PendingCounter
from worker.backfill.throttle import LIVE_LAG, Gate, Throttle

ROWS = 30_000
CHUNK_ROWS = 1_000
FILL = f"""
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    SELECT 'c-' || lpad(number::text, 7, '0'), 'p' || 1 + number % 3, 'name', repeat('text ', 20), 'owner',
        true
    FROM generate_series(1, {ROWS}) AS number;
    INSERT INTO project_collections (project_id, collection_id, research_context, created_at, updated_at)
    SELECT project_id, collection_id, nullif(description, repeat('text ', 1 + (random() * 20)::integer)),
        created_at, updated_at
    FROM collections;
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.updated', 'backfill', '{{}}' FROM collections;
    INSERT INTO applied_versions (collection_id, version, project_id, is_deleted)
    SELECT collection_id, 0, project_id, false FROM collections WHERE collection_id LIKE '%0';
"""  # noqa: S608 - constants
UNANALYZED = """
    DELETE FROM pg_statistic
    WHERE starelid::regclass::text IN ('collections', 'outbox_events', 'applied_versions')
"""
ALL_ALLOWED = "1,000 backfill events are pending, the most allowed"
REPORT = "SELECT pg_stat_force_next_flush()"
READ_SO_FAR = """
    SELECT sum(idx_tup_read) AS entries,
        (SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'outbox_events') AS scans
    FROM pg_stat_user_indexes WHERE relname = 'outbox_events'
"""
SCANNED = """
    SELECT relname, seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables
    WHERE relname IN ('collections', 'project_collections', 'outbox_events', 'applied_versions')
"""


@pytest.mark.parametrize("analyzed", [True, False], ids=["analyzed", "without statistics"])
@pytest.mark.parametrize("project_id", [None, "p2"])
async def test_a_chunk_reads_its_own_rows_and_no_others(
    project_id: str | None,
    analyzed: bool,  # noqa: FBT001 - pytest passes it by name
    engine: AsyncEngine,
    sql: asyncpg.Connection,
) -> None:
    await sql.execute(FILL)
    await sql.execute("ANALYZE" if analyzed else UNANALYZED)
    run = await take(engine, await started(engine, BackfillOptions(project_id=project_id)))
    await sql.execute("UPDATE backfill_runs SET cursor_key = 'c-0020000'")
    await engine.dispose()  # a session counts what it read since it last reported, not only its transaction
    read: dict[str, tuple[int, int]] = {}

    def count(connection: object) -> None:
        rows = connection.exec_driver_sql(SCANNED)  # type: ignore[attr-defined]
        read.update({table: (scanned, fetched) for table, scanned, fetched in rows})

    event.listen(engine.sync_engine, "commit", count)
    chunk = await chunk_of(engine, run)

    of_the_project = 0 if project_id is None else ROWS // 3  # at most: they may have to be sorted
    assert chunk.rows == CHUNK_ROWS
    assert chunk.enqueued > 0
    for table, (scanned, fetched) in read.items():
        assert scanned == 0, f"{table} was scanned: {scanned} rows"
        assert fetched <= 7 * CHUNK_ROWS + of_the_project, f"{fetched} rows of {table}"
    assert len(read) == 4


async def test_the_live_lane_s_age_is_read_without_passing_by_what_is_pending_in_the_others(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute(FILL)
    await sql.execute("ANALYZE outbox_events")
    plan = "\n".join(row[0] for row in await sql.fetch(f"EXPLAIN {LIVE_LAG}"))
    assert "outbox_events_claim_order" in plan
    assert f"Index Cond: ((lane >= {LOWEST_KNOWN_LANE}) AND (lane <= 0))" in plan
    assert await Gate(engine, 1_000).look(1) == Throttle("max_pending", ALL_ALLOWED)


@COUNTS_AT_ONCE
async def test_what_is_asked_before_each_chunk_passes_by_what_was_settled(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    gate, counter = Gate(engine, 1_000), PendingCounter(engine)

    async def ask() -> tuple[object, object]:
        gate.forget()
        return await gate.look(1), await counter.count()

    await sql.execute("VACUUM ANALYZE outbox_events")
    assert await ask() == (1_000, 0)  # plans are kept: these were made for an empty outbox
    await sql.execute(FILL)
    holder = await asyncpg.connect(database_url)
    async with holder.transaction(isolation="repeatable_read"):
        await holder.execute("SELECT FROM users")  # so that what is settled stays in the index
        await sql.execute("DELETE FROM outbox_events WHERE id <= (SELECT max(id) FROM outbox_events) - 50")
        assert await ask() == (950, 50)
        event.listen(engine.sync_engine, "commit", lambda connection: connection.exec_driver_sql(REPORT))
        await ask()
        await sql.execute(REPORT)  # its own scans, before any is counted
        before = await sql.fetchrow(READ_SO_FAR)
        assert await ask() == (950, 50)
        after = await sql.fetchrow(READ_SO_FAR)
    await holder.close()
    assert after["scans"] == before["scans"]
    assert 100 <= after["entries"] - before["entries"] <= 200
