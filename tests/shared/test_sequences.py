"""What is wrong with a sequence is found, told, and mended by the SQL that is told."""

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.database import driver_connection
from shared.postgres.sequences import DRAWN_BY_US, SHARED, read_sequences
from tests.engines import COUNTS_AT_ONCE
from tests.legacy_rows import seed

EVENT = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    VALUES ('c', 'collection.updated', 'api', '{}');
"""
AUDIT = "INSERT INTO audit_runs (status, requested_by, repair) VALUES ('requested', 'admin', false);"
BACKFILL = """
    INSERT INTO backfill_runs
        (status, in_worker, max_pending, chunk_size, planned, last_event_id, finished_at)
    VALUES ('finished', false, 1, 1, 0, 7, now());
"""
PROCESS = "INSERT INTO worker_processes (name) VALUES ('host:1');"
TARGET = """
    INSERT INTO collections (collection_id, project_id, collection_name, created_by)
    VALUES ('c', 'p1', '', 'owner');
    INSERT INTO project_collections (project_id, collection_id) VALUES ('p1', 'c');
"""
VERSION = """
    INSERT INTO applied_versions (collection_id, version, project_id, is_deleted) VALUES ('c', 7, 'p1', true);
"""
LETTER = """
    INSERT INTO outbox_dead_letters (id, aggregate_id, event_type, source, payload, created_at, error)
    VALUES (7, 'c', 'collection.updated', 'api', '{}', now(), '');
"""
BEHIND = "{0}_id_seq is behind: it {1}, and {2} holds higher ids"
# What was done, and what is told of it.
WRONG = {
    "behind its events": (
        f"{EVENT} {EVENT} SELECT setval('outbox_events_id_seq', 1)",
        BEHIND.format("outbox_events", "drew 1 last", "outbox_events.id"),
    ),
    "begun anew": (
        f"{EVENT} SELECT setval('outbox_events_id_seq', 1, false)",
        BEHIND.format("outbox_events", "draws 1 next", "outbox_events.id"),
    ),
    "behind what was applied": (
        VERSION,
        BEHIND.format("outbox_events", "draws 1 next", "applied_versions.version"),
    ),
    "behind a letter": (
        LETTER,
        BEHIND.format("outbox_events", "draws 1 next", "outbox_dead_letters.id"),
    ),
    "behind what a backfill appended": (
        BACKFILL,
        BEHIND.format("outbox_events", "draws 1 next", "backfill_runs.last_event_id"),
    ),
    "behind audits": (
        f"{AUDIT} ALTER SEQUENCE audit_runs_id_seq RESTART",
        BEHIND.format("audit_runs", "draws 1 next", "audit_runs.id"),
    ),
    "behind processes": (
        f"{PROCESS} {PROCESS} SELECT setval('worker_processes_id_seq', 1)",
        BEHIND.format("worker_processes", "drew 1 last", "worker_processes.id"),
    ),
    "behind the target": (
        f"{TARGET} SELECT setval('project_collections_id_seq', 1, false)",
        BEHIND.format("project_collections", "draws 1 next", "project_collections.id"),
    ),
    "of another name": (
        f"""{EVENT} ALTER SEQUENCE outbox_events_id_seq RENAME TO "odd 'name";
            ALTER SEQUENCE "odd 'name" RESTART""",
        """"odd 'name" is behind: it draws 1 next, and outbox_events.id holds higher ids""",
    ),
    "that no column owns": (
        f"""{EVENT} CREATE SEQUENCE another; ALTER TABLE outbox_events ALTER COLUMN id DROP IDENTITY,
            ALTER COLUMN id SET DEFAULT nextval('another')""",
        "another is behind: it draws 1 next, and outbox_events.id holds higher ids",
    ),
    "a cache": (
        "ALTER SEQUENCE outbox_events_id_seq CACHE 50",
        "outbox_events_id_seq has CACHE 50: sessions draw ids out of order",
    ),
    "downwards": (
        "ALTER SEQUENCE outbox_events_id_seq INCREMENT BY -1",
        "outbox_events_id_seq has INCREMENT -1: later ids are lower",
    ),
    "a cycle": (
        "ALTER SEQUENCE audit_runs_id_seq CYCLE",
        "audit_runs_id_seq has CYCLE: at its end it begins anew",
    ),
    "an unlogged table": (
        "ALTER TABLE outbox_events SET UNLOGGED",
        "outbox_events is unlogged: a crash of the server empties it",
    ),
    "no sequence": (
        "ALTER TABLE outbox_events ALTER COLUMN id DROP IDENTITY",
        "outbox_events.id has no sequence",
    ),
}
FINE = {
    "none was drawn yet": "SELECT",
    "all were drawn from it": f"{EVENT * 7} {VERSION} {LETTER} {BACKFILL} {AUDIT} {PROCESS} {TARGET}",
    "moved ahead": f"{EVENT} SELECT setval('outbox_events_id_seq', 2, false)",
    "some were drawn in vain": f"{EVENT} SELECT nextval('outbox_events_id_seq'); TRUNCATE outbox_events",
    "another type": f"{EVENT} ALTER TABLE worker_processes ALTER COLUMN id TYPE integer",
    "runs with a cache": "ALTER SEQUENCE backfill_runs_id_seq CACHE 50",
}


@pytest.fixture
async def seeded(sql: asyncpg.Connection) -> asyncpg.Connection:
    await seed(sql)
    return sql


async def faults(sql: asyncpg.Connection) -> dict[str, str]:
    """Return what is wrong, and by which SQL it is mended."""
    sequences = await read_sequences(sql, DRAWN_BY_US | SHARED)
    return {fault.what: fault.cure for sequence in sequences for fault in sequence.faults}


@pytest.mark.parametrize(("wrong", "told"), WRONG.values(), ids=WRONG)
async def test_what_is_wrong_is_told_and_mended_by_the_sql_that_is_told(
    seeded: asyncpg.Connection, wrong: str, told: str
) -> None:
    await seeded.execute(wrong)
    found = await faults(seeded)
    assert list(found) == [told]
    await seeded.execute(found[told])
    assert await faults(seeded) == {}
    await seeded.execute(f"{EVENT} {AUDIT} {PROCESS}")
    assert await faults(seeded) == {}


@pytest.mark.parametrize("fine", FINE.values(), ids=FINE)
async def test_nothing_is_told_of_what_is_right(seeded: asyncpg.Connection, fine: str) -> None:
    await seeded.execute(fine)
    assert await faults(seeded) == {}


async def test_nothing_is_told_of_a_database_that_was_never_migrated(sql: asyncpg.Connection) -> None:
    await sql.execute("CREATE SCHEMA bare; SET search_path = bare")
    assert await read_sequences(sql) == []


@COUNTS_AT_ONCE
async def test_it_reads_a_few_pages_however_many_versions_there_are(seeded: asyncpg.Connection) -> None:
    """Also in a session that makes no bitmaps, as the worker's do, and by statistics of an empty table."""
    await seeded.execute("ANALYZE applied_versions")
    await seeded.execute(
        "INSERT INTO applied_versions (collection_id, version, project_id, is_deleted)"
        " SELECT 'c' || n, n, 'p1', false FROM generate_series(1, 100000) AS n"
    )
    await seeded.execute("SELECT setval('outbox_events_id_seq', 100000)")
    await seeded.execute("SELECT brin_summarize_new_values('applied_versions_version')")
    await seeded.execute("SET enable_bitmapscan = off; SELECT pg_stat_force_next_flush()")
    scans = (
        "SELECT seq_scan, seq_tup_read, idx_scan, idx_tup_fetch FROM pg_stat_user_tables WHERE relname = $1"
    )
    before = await seeded.fetchrow(scans, "applied_versions")
    assert await faults(seeded) == {}
    await seeded.execute("SELECT pg_stat_force_next_flush()")
    after = await seeded.fetchrow(scans, "applied_versions")
    assert [now - then for now, then in zip(after, before, strict=True)] == [0, 0, 1, 0]


async def test_ids_that_a_session_drew_ahead_are_dropped_by_the_cure(
    seeded: asyncpg.Connection, database_url: str
) -> None:
    ahead = await asyncpg.connect(database_url)
    await seeded.execute("ALTER SEQUENCE outbox_events_id_seq CACHE 50")
    await ahead.execute(EVENT)
    await seeded.execute(EVENT)
    [cure] = (await faults(seeded)).values()
    await seeded.execute(cure)
    await ahead.execute(EVENT)
    await seeded.execute(EVENT)
    ids = [row["id"] for row in await seeded.fetch("SELECT id FROM outbox_events")]  # as they were inserted
    assert ids == sorted(ids)
    await ahead.close()


async def test_a_table_that_somebody_locks_keeps_nobody_from_a_connection(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    async with sql.transaction():
        await sql.execute("LOCK TABLE outbox_events")
        async with driver_connection(engine) as connection:
            assert {sequence.last_value for sequence in await read_sequences(connection)} == {None}
