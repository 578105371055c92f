"""No request reads a whole table: on tables of some size every statement goes by an index."""

import asyncio

import asyncpg
import httpx
from asyncpg.connection import LoggedQuery
from fastapi import FastAPI
from sqlalchemy import event

from api.main import create_app
from shared.postgres.database import driver_connection
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, SEEDED, create, started
from tests.api.recording import NAMES, Json
from tests.api.test_writes import until
from tests.engines import COUNTS_AT_ONCE

FILL = """
    INSERT INTO users (user_id, username, email, first_name, last_name, category, role, institution,
        subject_area, how_heard_about_us)
    SELECT 'u' || n, 'u' || n, 'u' || n || '@lab.example', '', '', '', '', '', '', ''
    FROM generate_series(1, 5000) n;
    INSERT INTO projects (project_id, project_name, owner_user_id)
    SELECT 'p' || n, 'name', 'u' || n FROM generate_series(1, 5000) n;
    INSERT INTO project_collaborators (project_id, user_id, role, is_active)
    SELECT 'p' || n, 'u' || 1 + (n + 7) % 5000, 'editor', true FROM generate_series(1, 5000) n;
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
    SELECT 'c' || n, 'p' || 1 + n % 5000, 'name', 'u1', true FROM generate_series(1, 20000) n;
    INSERT INTO article_collections (collection_id, article_pmid, article_title, source_type, added_by)
    SELECT 'c' || 1 + n % 20000, n::text, 'title', 'manual', 'u1' FROM generate_series(1, 40000) n;
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT 'c' || n, 'collection.updated', 'api', '{}' FROM generate_series(1, 20000) n;
    INSERT INTO outbox_dead_letters (id, aggregate_id, event_type, source, payload, created_at, error)
    SELECT -id, aggregate_id, event_type, source, payload, created_at, 'error' FROM outbox_events;
    INSERT INTO applied_versions (collection_id, version, project_id, is_deleted)
    SELECT 'c' || n, n, 'p' || 1 + n % 5000, false FROM generate_series(1, 20000) n;
    INSERT INTO backfill_runs (status, in_worker, max_pending, chunk_size, planned, finished_at)
    SELECT 'finished', true, 1, 1, 0, now() FROM generate_series(1, 1000) n;
    ANALYZE;
"""

SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE application_name = 'collection-sync api' AND datname = current_database()"
)


async def test_no_statement_of_any_request_scans_a_table(
    client: httpx.AsyncClient, app: FastAPI, seeded: asyncpg.Connection
) -> None:
    await seeded.execute(FILL)
    sent: list[tuple[str, Json]] = []
    engine = app.state.collection_sync.engine

    def remember(_connection: object, _cursor: object, statement: str, parameters: Json, *_: object) -> None:
        sent.append((statement, parameters))

    def remember_writes(sent_by_driver: LoggedQuery) -> None:
        if sent_by_driver.args:
            sent.append((sent_by_driver.query, sent_by_driver.args))

    event.listen(engine.sync_engine, "before_cursor_execute", remember)
    async with driver_connection(engine) as only:  # the pool's one connection
        only.add_query_logger(remember_writes)
    await client.get(ALL, headers={"User-ID": NAMES["EDITOR_EMAIL"]})
    await client.get(f"{ALL}?limit=2&after={NAMES['C_SEED']}", headers=OWNER)
    path = await create(client)
    await client.put(path, headers=OWNER, json={"color": "#000000"})
    await client.get(f"{path}/sync", headers={"User-ID": NAMES["EDITOR_EMAIL"]})
    await client.delete(path, headers=OWNER)
    await asyncio.sleep(0)  # the driver tells of a statement a moment afterwards

    assert len(sent) == 1 + 1 + 1 + 1 + 3 + 1
    for statement, parameters in sent:
        plan = "\n".join(row[0] for row in await seeded.fetch(f"EXPLAIN {statement}", *parameters))
        assert "Seq Scan" not in plan, f"{statement}\n{plan}"


@COUNTS_AT_ONCE
async def test_a_plan_that_was_made_while_the_outbox_was_empty_does_not_scan_it_when_it_is_long(
    settings: Settings, seeded: asyncpg.Connection
) -> None:
    await seeded.execute("VACUUM ANALYZE outbox_events")
    scans = "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'outbox_events'"
    scanned = (await seeded.fetchrow(scans))["seq_scan"]
    async with started(create_app(settings)) as client:
        for _ in range(10):
            assert (await client.get(f"{SEEDED}/sync", headers=OWNER)).status_code == 200
    await until(seeded, SESSIONS, 0)  # by then their counts have arrived
    counted = await seeded.fetchrow(scans)
    assert (counted["seq_scan"], counted["idx_scan"] >= 10) == (scanned, True)


@COUNTS_AT_ONCE
async def test_a_plan_that_was_made_while_a_project_was_empty_does_not_read_all_of_it_when_it_is_full(
    settings: Settings, seeded: asyncpg.Connection
) -> None:
    scans = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = $1"
    before = await seeded.fetchval(scans, "idx_collection_project_id")
    async with started(create_app(settings)) as client:
        for _ in range(10):
            assert (await client.put(SEEDED, headers=OWNER, json={"color": "#000000"})).status_code == 200
    await until(seeded, SESSIONS, 0)
    assert await seeded.fetchval(scans, "collections_pkey") >= 10
    assert await seeded.fetchval(scans, "idx_collection_project_id") == before
