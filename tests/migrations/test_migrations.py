import re
import subprocess
import threading
import uuid
from pathlib import Path

import asyncpg
import pytest

from deploy.local.postgres import Postgres
from shared.schema import REVISION
from tests.databases import Databases
from tests.forked import ROOT, run

PRODUCTION_SCHEMA = ROOT / "migrations" / "legacy_schema.sql"
OUR_TABLES = {
    "outbox_events",
    "outbox_dead_letters",
    "applied_versions",
    "backfill_runs",
    "audit_runs",
    "audit_findings",
    "worker_processes",
    "collection_sync_version",
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
