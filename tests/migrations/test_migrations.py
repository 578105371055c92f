import asyncio
import re
import subprocess
import threading
import uuid
from pathlib import Path

import asyncpg
import pytest

from deploy.local.postgres import Postgres
from shared.revision import REVISION
from tests.backfill.driving import until_waiting
from tests.databases import Databases
from tests.engines import COUNTS_AT_ONCE
from tests.forked import ROOT, run

PRODUCTION_SCHEMA = ROOT / "migrations" / "legacy_schema.sql"
OUR_TABLES = {
    "outbox_events",
    "outbox_dead_letters",
    "applied_versions",
    "backfill_runs",
    "capture_settings",
    "captured_counts",
    "captured_writers",
    "captured_writes",
    "audit_runs",
    "audit_findings",
    "worker_processes",
    "collection_sync_version",
    "going_back_losses",
    "idempotency_keys",
    "migration_phase",
    "operator_acts",
    "phase_turns",
    "shadow_counts",
    "shadow_findings",
}


def alembic(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run alembic as an operator does, with nothing in the environment but the database."""
    return run(["-m", "alembic", *arguments], {"DATABASE_URL": database_url})


def dump(postgres: Postgres, database_url: str, *options: str) -> str:
    """Return `pg_dump --schema-only`, less the two lines that hold a random key."""
    dumped = subprocess.run(
        [postgres.binary("pg_dump"), "--schema-only", *options, database_url],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return re.sub(r"^\\(un)?restrict .*$", "", dumped, flags=re.MULTILINE)


@pytest.fixture
def empty_url(databases: Databases) -> str:
    return databases.create_empty(f"empty_{uuid.uuid4().hex}")


@pytest.fixture
async def production_url(empty_url: str) -> str:
    """A database as production has it before this project."""
    connection = await asyncpg.connect(empty_url)
    await connection.execute(PRODUCTION_SCHEMA.read_text(encoding="utf-8"))
    await connection.close()
    return empty_url


async def tables(database_url: str) -> set[str]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await connection.close()
    return {row["tablename"] for row in rows}


async def test_on_production_only_our_tables_are_added_and_nothing_else_changes(
    postgres: Postgres, production_url: str
) -> None:
    legacy = await tables(production_url)
    only_legacy = [f"--table=public.{name}" for name in sorted(legacy)]
    before = dump(postgres, production_url, *only_legacy)

    assert alembic(production_url, "upgrade", "head").returncode == 0
    assert await tables(production_url) == legacy | OUR_TABLES
    assert dump(postgres, production_url, *only_legacy) == before

    assert alembic(production_url, "downgrade", "base").returncode == 0
    assert await tables(production_url) == legacy | {"collection_sync_version"}
    assert dump(postgres, production_url, *only_legacy) == before

    assert alembic(production_url, "upgrade", "head").returncode == 0
    assert dump(postgres, production_url, *only_legacy) == before


async def test_an_empty_database_gets_the_same_schema_as_production_has(
    postgres: Postgres, databases: Databases, production_url: str
) -> None:
    empty = databases.create_empty(f"empty_{uuid.uuid4().hex}")
    for url in (empty, production_url):
        assert alembic(url, "upgrade", "head").returncode == 0
    assert dump(postgres, empty) == dump(postgres, production_url)


def test_the_models_and_the_migrations_say_the_same(database_url: str) -> None:
    checked = alembic(database_url, "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_code_asks_for_the_newest_migration() -> None:
    revisions = sorted((ROOT / "migrations" / "versions").glob("[0-9]*.py"))
    assert revisions[-1].name.startswith(f"{REVISION}_")


READ = """
    SELECT relname, seq_tup_read, idx_tup_fetch, pg_relation_filenode(relid) FROM pg_stat_user_tables
    WHERE relname IN ('outbox_events', 'outbox_dead_letters') ORDER BY relname
"""
PENDING = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT number, 'collection.updated', 'api', '{}' FROM generate_series(1, 1000) AS number;
    INSERT INTO outbox_dead_letters (id, aggregate_id, event_type, source, payload, created_at, error)
    SELECT id, aggregate_id, event_type, source, payload, created_at, '' FROM outbox_events
"""


@COUNTS_AT_ONCE
async def test_the_column_for_traces_comes_and_goes_without_a_look_at_pending_events(
    empty_url: str,
) -> None:
    """However many there are: the tables are locked meanwhile."""
    assert alembic(empty_url, "upgrade", "0003").returncode == 0
    connection = await asyncpg.connect(empty_url)
    try:
        await connection.execute(PENDING)
        await connection.execute("SELECT pg_stat_force_next_flush()")
        before = await connection.fetch(READ)
        assert before[0]["seq_tup_read"] == 0 < before[1]["seq_tup_read"]
        for step in (("upgrade", "0004"), ("downgrade", "0003"), ("upgrade", "0004")):
            assert alembic(empty_url, *step).returncode == 0
            assert await connection.fetch(READ) == before
        assert (
            await connection.fetchval("SELECT count(*) FROM outbox_events WHERE traceparent IS NULL") == 1000
        )
    finally:
        await connection.close()


WAITING = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    VALUES ('c1', 'collection.updated', 'api', '{}')
"""
OURS = """
    INSERT INTO users (user_id, username, email, first_name, last_name, category, role, institution,
        subject_area, how_heard_about_us) VALUES ('owner', 'owner', '', '', '', '', '', '', '', '');
    INSERT INTO projects (project_id, project_name, owner_user_id) VALUES ('p1', 'One', 'owner');
    INSERT INTO collections (collection_id, project_id, collection_name, created_by)
    VALUES ('c1', 'p1', 'name', 'owner');
    INSERT INTO project_collections (project_id, collection_id, tags) VALUES ('p1', 'c1', '[ ]');
    INSERT INTO applied_versions (collection_id, version, project_id, is_deleted)
    VALUES ('c1', 1, 'p1', false)
"""
LETTER = """
    INSERT INTO outbox_dead_letters (id, aggregate_id, event_type, source, payload, created_at, error)
    VALUES (1, 'c1', 'collection.updated', 'api', '{}', now(), '')
"""
BACKFILL = """
    INSERT INTO backfill_runs (status, in_worker, max_pending, chunk_size, planned)
    VALUES ('paused', false, 1, 1, 1)
"""
AUDIT = """
    INSERT INTO audit_runs (status, requested_by, repair, started_at, heartbeat_at)
    VALUES ('running', 'schedule', false, clock_timestamp(), clock_timestamp() + interval '1 hour')
"""
# What would be lost, what is said of it, and what puts an end to it.
LOSSES = {
    "pending event": (WAITING, "1 pending events would be lost", "DELETE FROM outbox_events"),
    "event that ended a worker": (
        WAITING + "; UPDATE outbox_events SET attempts = 1",  # noqa: S608 - constants
        "1 pending events ended their worker before",
        "DELETE FROM outbox_events",
    ),
    "event of a later version": (
        WAITING + "; UPDATE outbox_events SET schema_version = 2",  # noqa: S608 - constants
        "1 pending events are of a later version than 1",
        "DELETE FROM outbox_events",
    ),
    "open letter": (
        LETTER,
        "1 dead letters are open",
        "UPDATE outbox_dead_letters SET state = 'discarded', closed_at = now()",
    ),
    "paused backfill": (
        BACKFILL,
        "1 backfills are not finished",
        "UPDATE backfill_runs SET status = 'cancelled'",
    ),
    "audit under way": (AUDIT, "1 audits are under way", "UPDATE audit_runs SET heartbeat_at = '2000-01-01'"),
    "rows of ours": (
        OURS,
        "1 rows of project_collections are known to be ours",
        "UPDATE project_collections SET tags = '[1]'",
    ),
    "moved reads": (
        "UPDATE migration_phase SET phase = 'reads_moved'",
        "reads are moved: run `python -m worker.phase back` first",
        "UPDATE migration_phase SET phase = 'shadow_reads'",
    ),
    "rows of ours that are to stay": (OURS, "DELETE FROM applied_versions", "DELETE FROM applied_versions"),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_downgrade_refuses_to_lose_anything_and_says_what_to_do(
    postgres: Postgres, database_url: str, loss: str
) -> None:
    put, said, end = LOSSES[loss]
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(put)
        before = dump(postgres, database_url)
        refused = alembic(database_url, "downgrade", "base")
        assert refused.returncode == 1
        assert said in refused.stderr
        assert refused.stderr.rstrip().endswith("Nothing was changed.")
        assert dump(postgres, database_url) == before
        await connection.execute(end)
    finally:
        await connection.close()
    done = alembic(database_url, "downgrade", "base")
    assert done.returncode == 0, done.stderr


async def test_an_event_that_commits_while_a_downgrade_waits_for_its_writer_is_not_lost(
    database_url: str,
) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute(WAITING)
            downgrading = asyncio.create_task(asyncio.to_thread(alembic, database_url, "downgrade", "base"))
            watching = await asyncpg.connect(database_url)
            await until_waiting(watching, "^collection-sync migrations$")
            await watching.close()
        refused = await downgrading
        assert "1 pending events would be lost" in refused.stderr
        assert await connection.fetchval("SELECT count(*) FROM outbox_events") == 1
    finally:
        await connection.close()


async def test_half_of_the_legacy_schema_is_refused_and_nothing_is_changed(empty_url: str) -> None:
    connection = await asyncpg.connect(empty_url)
    await connection.execute("CREATE TABLE collections (collection_id varchar PRIMARY KEY)")
    await connection.close()
    refused = alembic(empty_url, "upgrade", "head")
    assert refused.returncode == 1
    assert "project_collections" in refused.stderr
    assert await tables(empty_url) == {"collections"}


async def test_two_migrations_at_once_wait_for_each_other(empty_url: str) -> None:
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda: codes.append(alembic(empty_url, "upgrade", "head").returncode))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0, 0, 0]


# What PostgreSQL says to whom it chooses of two that wait for each other. Numbers drawn are not taken back.
CHOSEN = """
    CREATE SEQUENCE tries;
    CREATE FUNCTION choose() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('tries') <= {times} THEN
            RAISE EXCEPTION 'deadlock detected' USING ERRCODE = 'deadlock_detected';
        END IF;
    END $$;
    CREATE EVENT TRIGGER chosen ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION choose()
"""


@pytest.mark.parametrize(("times", "status"), [(2, 0), (1_000, 1)])
async def test_a_migration_that_is_chosen_in_a_deadlock_begins_anew_a_few_times(
    times: int, status: int, empty_url: str
) -> None:
    assert alembic(empty_url, "upgrade", "0004").returncode == 0
    connection = await asyncpg.connect(empty_url)
    await connection.execute(CHOSEN.format(times=times))
    ended = alembic(empty_url, "upgrade", "head")
    assert ended.returncode == status, ended.stderr
    assert ended.stderr.count("Once more.") == min(times, 4)
    revision = await connection.fetchval("SELECT version_num FROM collection_sync_version")
    assert revision == ("0004" if status else REVISION)
    await connection.close()


def test_without_a_database_the_message_says_what_to_set() -> None:
    refused = run(["-m", "alembic", "upgrade", "head"], {})
    assert refused.returncode != 0
    assert "DATABASE_URL" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_copy_of_the_legacy_schema_touches_nothing_but_tables_and_their_parts() -> None:
    text = Path(PRODUCTION_SCHEMA).read_text(encoding="utf-8")
    kinds = set(re.findall(r"^(CREATE(?: UNIQUE)? \w+|ALTER \w+)", text, flags=re.MULTILINE))
    assert kinds == {"CREATE TABLE", "CREATE SEQUENCE", "CREATE INDEX", "CREATE UNIQUE INDEX",
                     "ALTER TABLE", "ALTER SEQUENCE"}  # fmt: skip
