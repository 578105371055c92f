"""Installing, changing the mode and removing: what is there afterwards, and who waits meanwhile."""

import asyncio
import json
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from deploy.local.postgres import Postgres
from shared.capture import FUNCTION, TRIGGERS
from shared.postgres.database import create_engine
from shared.settings import Settings
from tests.capture.conftest import Capture
from tests.capture.writers import insert, runs
from tests.draining import drain
from tests.drift import drift
from tests.forked import run
from tests.log_lines import hold_printed
from tests.migrations.test_migrations import alembic, dump
from tests.processes import HANG_SECONDS
from worker.capture.change import change
from worker.capture.statements import LOCK_TIMEOUT
from worker.command_line.run import CommandError
from worker.preflight.checks.capture import capture as preflight
from worker.preflight.checks.tables import triggers

LEGACY = [
    "activity_logs", "article_collections", "collections", "project_collaborators", "project_collections",
    "projects", "users",
]  # fmt: skip
MODES = ("count", "append", "refuse")
INSTALLED = "SELECT tgname::text FROM pg_trigger WHERE tgname = ANY($1) AND tgrelid = 'collections'::regclass"
FUNCTIONS = "SELECT count(*) FROM pg_proc WHERE proname = $1"
WRITERS, TIMES = 6, 50
CHANGES = "UPDATE collections SET description = coalesce(description, '') || 'x'"
CHANGE = "UPDATE collections SET description = coalesce(description, '') || 'x' WHERE collection_id = 'c1'"


def command(url: str, *words: str) -> tuple[int, str]:
    done = run(["-m", "worker.capture", *words], {"DATABASE_URL": url})
    hold_printed(done.stderr)
    return done.returncode, done.stdout


def dumped(postgres: Postgres, url: str) -> str:
    return dump(postgres, url, *(f"--table=public.{name}" for name in LEGACY))


async def test_without_it_and_once_it_is_removed_no_legacy_table_is_touched(
    postgres: Postgres, database_url: str, capture: Capture, sql: asyncpg.Connection
) -> None:
    before, whole = dumped(postgres, database_url), dump(postgres, database_url)
    for mode in MODES:
        await capture(mode)
        assert dumped(postgres, database_url) != before
    await capture(None)
    assert dumped(postgres, database_url) == before
    assert dump(postgres, database_url) == whole
    assert await sql.fetchval("SELECT count(*) FROM capture_settings") == 0


async def test_a_change_of_mode_takes_no_lock_of_the_table(sql: asyncpg.Connection, capture: Capture) -> None:
    """So it gets through while a session has locked the table for hours."""
    await capture("count")
    await sql.execute(insert("c1"))
    async with sql.transaction():
        await sql.execute("LOCK TABLE collections IN ACCESS EXCLUSIVE MODE")
        planned = await capture("append")
        assert len(planned.statements) == 2
    assert (await capture("append")).statements == []


async def test_what_another_release_installed_is_replaced(sql: asyncpg.Connection, capture: Capture) -> None:
    await capture("append")
    assert (await preflight(sql)).objections == []
    await sql.execute("UPDATE capture_settings SET definition = 'another'")
    assert [one.fix for one in (await preflight(sql)).objections] == [
        "python -m worker.capture install --mode append"
    ]
    await capture("append")
    assert (await preflight(sql)).objections == []
    assert len(await sql.fetch(INSTALLED, list(TRIGGERS))) == len(TRIGGERS)


async def test_preflight_names_what_keeps_it_from_seeing(sql: asyncpg.Connection, capture: Capture) -> None:
    assert "Not installed" in (await preflight(sql)).fine
    await capture("append")
    assert (await triggers(sql)).objections == []  # they are ours
    await sql.execute("ALTER TABLE collections DISABLE TRIGGER collection_sync_capture_delete")
    login = await sql.fetchval("SELECT quote_ident(session_user)")
    await sql.execute(f"ALTER ROLE {login} SET session_replication_role = replica")
    said = [one.sentence for one in (await preflight(sql)).objections]
    await sql.execute(f"ALTER ROLE {login} RESET session_replication_role")
    assert len(said) == 2
    assert "collection_sync_capture_delete" in said[0]
    assert said[1].startswith(f"{login} has session_replication_role = replica")


async def test_a_writer_in_a_long_transaction_makes_it_try_again_and_nobody_queues_behind_it(
    sql: asyncpg.Connection, database_url: str, engine: AsyncEngine
) -> None:
    await sql.execute(insert("c1"))
    attempts: list[int] = []
    tried = asyncio.Event()

    def watch(number: int) -> None:
        attempts.append(number)
        tried.set()

    other = await asyncpg.connect(database_url)
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute(CHANGE)
    installing = asyncio.create_task(change(engine, "append", interrupted=asyncio.Event(), watch=watch))
    async with asyncio.timeout(HANG_SECONDS):
        await tried.wait()
        await other.execute("SET lock_timeout = '30s'")
        await other.execute(insert("c2"))  # gets through between two attempts, or after one that gave up
        await transaction.commit()
        await installing
    await other.close()
    assert attempts[0] == 1
    assert LOCK_TIMEOUT == "50ms"
    assert await sql.fetchval("SELECT mode FROM capture_settings") == "append"


@pytest.mark.slow
@pytest.mark.wide
async def test_fifty_times_it_comes_and_goes_under_writes_and_none_fails(
    sql: asyncpg.Connection, database_url: str, capture: Capture, engine: AsyncEngine
) -> None:
    """Its own waits end after LOCK_TIMEOUT; `python -m benchmarks capture` measures whom it kept waiting."""
    for number in range(WRITERS):
        await sql.execute(insert(f"w{number}"))
    is_over = asyncio.Event()
    written: list[str] = []

    async def write(number: int) -> None:
        connection = await asyncpg.connect(database_url)
        while not is_over.is_set():
            written.append(await connection.execute(f"{CHANGES} WHERE collection_id = 'w{number}'"))
        await connection.close()

    writing = [asyncio.create_task(write(number)) for number in range(WRITERS)]
    for mode in ("count", "append", None) * TIMES:
        await capture(mode)
    await capture("append")
    is_over.set()
    await asyncio.gather(*writing)
    assert set(written) == {"UPDATE 1"}
    await sql.execute(CHANGES)
    await drain(engine)
    assert await drift(sql) == []


async def test_interrupted_it_has_changed_nothing(sql: asyncpg.Connection, engine: AsyncEngine) -> None:
    interrupted = asyncio.Event()
    async with sql.transaction():
        await sql.execute("LOCK TABLE collections IN SHARE MODE")
        with pytest.raises(CommandError, match="Nothing was changed"):
            await change(engine, "count", interrupted=interrupted, watch=lambda _: interrupted.set())
    assert await sql.fetch(INSTALLED, list(TRIGGERS)) == []
    assert await sql.fetchval(FUNCTIONS, FUNCTION) == 0


async def test_the_command_says_what_it_does_and_the_sql_does_the_same(
    database_url: str, sql: asyncpg.Connection
) -> None:
    status, sql_text = command(database_url, "install", "--mode", "refuse", "--sql")
    assert status == 0
    assert await sql.fetch(INSTALLED, list(TRIGGERS)) == []
    await sql.execute(sql_text)
    status, said = command(database_url, "status", "--json")
    assert (status, json.loads(said)["mode"], json.loads(said)["faults"]) == (0, "refuse", [])
    status, said = command(database_url, "install", "--mode", "refuse")
    assert (status, said.split(".")[0]) == (0, "It is so already")
    status, said = command(database_url, "install", "--mode", "count", "--json")
    assert (status, json.loads(said)) == (
        0,
        {"mode": "count", "before": "refuse", "changed": True},
    )
    await sql.execute("DROP TRIGGER collection_sync_capture_truncate ON collections")
    status, said = command(database_url, "status")
    assert status == 1
    assert "collection_sync_capture_truncate" in said
    assert "session_replication_role = replica" in said
    _, sql_text = command(database_url, "remove", "--sql")
    await sql.execute(sql_text)
    assert command(database_url, "status")[0] == 0
    assert await sql.fetchval(FUNCTIONS, FUNCTION) == 0


async def test_the_schema_is_not_taken_back_while_it_is_installed(
    database_url: str, capture: Capture
) -> None:
    await capture("append")
    refused = alembic(database_url, "downgrade", "0009")
    assert refused.returncode != 0
    assert "python -m worker.capture remove" in refused.stderr
    await capture(None)
    assert alembic(database_url, "downgrade", "0009").returncode == 0
    assert alembic(database_url, "upgrade", "head").returncode == 0


async def test_columns_of_the_monolith_come_and_go_and_a_projected_one_goes_not_in_silence(
    sql: asyncpg.Connection, capture: Capture
) -> None:
    await sql.execute(insert("c1"))
    await capture("append")
    for statement in (
        "ALTER TABLE collections ADD COLUMN nobodys text",
        CHANGE,
        "ALTER TABLE collections DROP COLUMN nobodys",
        "ALTER TABLE collections DROP COLUMN icon",
        CHANGE,
    ):
        await sql.execute(statement)
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 2
    for statement in (
        "ALTER TABLE collections DROP COLUMN description",
        "ALTER TABLE collections ALTER COLUMN description TYPE varchar",
    ):
        with pytest.raises(asyncpg.PostgresError, match="trigger"):
            await sql.execute(statement)
    await capture(None)
    await sql.execute("ALTER TABLE collections ALTER COLUMN description TYPE varchar")
    await capture("append")
    await sql.execute(CHANGE)
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 3


async def test_a_migration_that_writes_and_then_alters_lets_the_capture_look_in_between(
    sql: asyncpg.Connection, capture: Capture
) -> None:
    await sql.execute(insert("c1"))
    await capture("append")
    alter = "ALTER TABLE collections ADD COLUMN nobodys text"
    with pytest.raises(asyncpg.ObjectInUseError, match="pending trigger events"):
        await runs(CHANGE, alter)(sql)
    await runs(CHANGE, "SET CONSTRAINTS ALL IMMEDIATE", alter)(sql)
    assert await sql.fetchval("SELECT count(*) FROM outbox_events WHERE source = 'capture'") == 1


async def test_two_that_install_at_once_wait_for_each_other(
    sql: asyncpg.Connection, settings: Settings
) -> None:
    async def bring(mode: str) -> None:
        engine = create_engine(settings, application_name="test", pool_size=1, statement_timeout_seconds=30)
        await change(engine, mode, interrupted=asyncio.Event(), watch=lambda _: None)
        await engine.dispose()

    await asyncio.gather(*(bring(mode) for mode in (*MODES, *MODES)))
    assert len(await sql.fetch(INSTALLED, list(TRIGGERS))) == len(TRIGGERS)
    assert (await preflight(sql)).objections == []


async def test_it_outlives_a_dump_and_its_restore(
    postgres: Postgres, database_url: str, sql: asyncpg.Connection, capture: Capture, tmp_path: Path
) -> None:
    del tmp_path
    from tests.acceptance.test_dump_and_restore import restore  # noqa: PLC0415

    await sql.execute(insert("c1"))
    await capture("append")
    await sql.execute(CHANGE)
    await sql.execute("CREATE DATABASE elsewhere_of_capture TEMPLATE template0")
    elsewhere_url = postgres.url_of("elsewhere_of_capture")
    await asyncio.to_thread(restore, postgres, database_url, elsewhere_url)
    elsewhere = await asyncpg.connect(elsewhere_url)
    counted = "SELECT count(*) FROM outbox_events WHERE source = 'capture'"
    assert await elsewhere.fetchval(counted) == 1  # the restore itself is none
    await elsewhere.execute(CHANGE)
    assert await elsewhere.fetchval(counted) == 2
    assert (await preflight(elsewhere)).objections == []
    await elsewhere.close()
    await sql.execute("DROP DATABASE elsewhere_of_capture")
