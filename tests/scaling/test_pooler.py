"""Every process through PgBouncer in transaction mode: no promise is lost, and nothing in silence."""

import asyncio
import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from api import listing
from api.context import collection_sync
from api.main import create_app
from benchmarks.backlog import empty
from deploy.local.postgres import Postgres
from shared.planner import BATCHES
from shared.postgres.database import autocommit, create_engine, driver_connection
from shared.postgres.pooler import PoolerError
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, started
from tests.api.recording import seed as seed_recorded
from tests.counters.draining import append_backfill, worker_parts
from tests.databases import Databases
from tests.drift import drained, drift
from tests.forked import run
from tests.legacy_rows import seed, set_collection
from tests.phase1.script import SCRIPT
from tests.processes import HANG_SECONDS, environment, free_port, running, running_api, running_worker
from tests.race import freezing
from tests.scaling.pgbouncer import PgBouncer, Poolers
from worker import main

ADVICE = "DATABASE_POOLER=transaction"
IGNORED = (
    "row_security,default_transaction_isolation,statement_timeout,idle_in_transaction_session_timeout,client_connection_check_interval,lock_timeout,"
    "enable_seqscan,enable_bitmapscan,enable_hashjoin,enable_mergejoin,plan_cache_mode,jit,synchronous_commit"
)
PROCESSES = {
    "worker": ["-m", "worker"],
    "arq": ["-m", "arq", "worker.main.WorkerSettings"],
    "api": ["-m", "uvicorn", "api.main:app", "--port"],
    "audit": ["-m", "worker.audit"],
    "backfill": ["-m", "worker.backfill"],
    "dead letters": ["-m", "worker.dead_letters", "list"],
    "migrations": ["-m", "alembic", "upgrade", "head"],
}
GUARANTEES = ("statement_timeout", "idle_in_transaction_session_timeout", "client_connection_check_interval")
SHOW = "SELECT name, current_setting(name) AS value FROM unnest($1::text[]) AS asked (name)"


@pytest.fixture
def env(database_url: str, redis_url: str, pooled: Poolers) -> dict[str, str]:
    return environment(database_url, redis_url, **pooled.way_to(database_url))


def complete(env: Mapping[str, str], *command: str) -> str:
    """Run a command to its success and return its stdout."""
    ran = run(command, env, timeout=HANG_SECONDS)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@contextmanager
def pooler(directory: Path, server: Postgres, **settings: str) -> Iterator[PgBouncer]:
    with PgBouncer(directory / "pgbouncer", make_url(server.url), settings) as started:
        yield started


async def refusals(env: Mapping[str, str]) -> dict[str, str]:
    """Start each process without saying that there is a pooler; return what the refused ones said."""
    said = {}
    for name, words in PROCESSES.items():
        arguments = [*words, str(free_port())] if name == "api" else words
        with running(arguments, env) as process:
            assert await process.exit_code() != 0, (name, process.output)
            said[name] = process.output
    return said


@pytest.mark.parametrize("ignored", ["", IGNORED], ids=["it refuses settings", "it drops settings"])
async def test_whoever_is_not_told_of_the_pooler_ends_at_once_and_says_what_to_set(
    ignored: str, postgres: Postgres, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with pooler(tmp_path, postgres, ignore_startup_parameters=ignored) as between:
        said = await refusals(environment(between.way_to(make_url(database_url)), redis_url))
    for name, output in said.items():
        assert ADVICE in output, (name, output)
        assert postgres.password not in output


async def test_a_pooler_for_single_statements_is_refused_although_it_was_declared(
    postgres: Postgres, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with pooler(tmp_path, postgres, pool_mode="statement") as between:
        env = environment(between.way_to(make_url(database_url)), redis_url, DATABASE_POOLER="transaction")
        with running(["-m", "worker"], env) as worker:
            assert await worker.exit_code() == 2
    assert "pool_mode = transaction" in worker.output


async def in_force(engine: AsyncEngine, names: list[str]) -> list[dict[str, str]]:
    """Return these settings as a batch has them, a lone statement of the driver's and one of SQLAlchemy's."""
    seen = []
    async with driver_connection(engine) as connection:
        async with connection.transaction():
            seen.append(await connection.fetch(SHOW, names))
        seen.append(await connection.fetch(SHOW, names))
    async with autocommit(engine) as alchemy:
        asked = text("SELECT name, current_setting(name) FROM unnest(CAST(:names AS text[])) AS asked (name)")
        seen.append((await alchemy.execute(asked, {"names": names})).all())
    return [dict(map(tuple, rows)) for rows in seen]


async def test_every_statement_has_the_settings_that_a_session_of_its_own_would_have(
    settings: Settings, pooled_settings: Settings
) -> None:
    batches = BATCHES | main.TAKEN_BACK_WHOLE | main.NOT_HELD_UP
    names = [*GUARANTEES, *batches]
    async with worker_parts(settings) as direct, worker_parts(pooled_settings) as through:
        for ours, theirs in zip(direct["engines"], through["engines"], strict=True):
            expected = await in_force(ours, names)
            assert await in_force(theirs, names) == expected
    assert expected[0]["statement_timeout"] == "30s"


async def test_nothing_of_it_is_left_to_whoever_gets_the_session_next(
    pooled_settings: Settings, pooled: Poolers
) -> None:
    async with worker_parts(pooled_settings) as ctx:
        await in_force(ctx["engines"][0], list(GUARANTEES))
        url = pooled.way_to(pooled_settings.database_url.get_secret_value())["DATABASE_URL"]
        next_one = await asyncpg.connect(url, statement_cache_size=0)
        left = {await next_one.fetchval(f"SHOW {name}") for name in GUARANTEES}
        prepared = await next_one.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE NOT from_sql")
        await next_one.close()
    assert left == {"0"}
    assert prepared <= 1  # the one that asks


async def test_a_transaction_that_could_not_begin_leaves_none_open(pooled_settings: Settings) -> None:
    engine = create_engine(
        pooled_settings, application_name="test", pool_size=1, statement_timeout_seconds=5, session={}
    )
    async with driver_connection(engine) as connection:
        type(connection).in_each_transaction = " SET LOCAL no_such_setting = '1';"
        with pytest.raises(asyncpg.UndefinedObjectError):
            await connection.fetch("SELECT 1")
        assert not connection.is_in_transaction()
    await engine.dispose()


async def test_a_statement_that_takes_too_long_is_ended(pooled_settings: Settings) -> None:
    engine = create_engine(pooled_settings, application_name="test", pool_size=1, statement_timeout_seconds=1)
    # On a machine that is busy it may be an earlier one of that session.
    with pytest.raises(asyncpg.QueryCanceledError, match="statement timeout"):
        async with driver_connection(engine) as connection:
            await connection.fetch(f"SELECT pg_sleep({HANG_SECONDS})")
    await engine.dispose()


async def test_what_a_killed_worker_had_claimed_is_free_again_although_its_statement_still_waits(
    engine: AsyncEngine, sql: asyncpg.Connection, env: dict[str, str]
) -> None:
    """The pooler cuts the session of a client that has gone, and the server looks for that each second."""
    point = "guard: claimed, before the guard"
    await seed(sql)
    await freezing.install(sql)
    await set_collection(engine, "c1", "claimed")
    async with freezing.frozen(sql, point), running_worker(env) as worker:
        await freezing.arrived(sql, point)
        worker.kill()
        async with asyncio.timeout(HANG_SECONDS):
            while not await sql.fetch("SELECT 1 FROM outbox_events FOR UPDATE SKIP LOCKED"):
                await asyncio.sleep(0.05)


async def test_writes_backfill_audit_and_commands_share_four_sessions(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    """Two workers alone would open twenty-four; each session serves whoever has a transaction."""
    await seed(sql)
    await empty(sql)  # of everything but who owns the rows below
    await append_backfill(sql, 400)
    await sql.execute("DELETE FROM outbox_events WHERE id % 2 = 0")  # what the backfill is to find
    async with (
        running_worker(env),
        running_worker(env),
        running_api(env) as (_, url),
        httpx.AsyncClient(base_url=url, headers={"User-ID": "owner"}, timeout=HANG_SECONDS) as client,
    ):
        answers = []
        for _ in range(8):  # an API has places for so many at once
            made = [client.post("/projects/p1/collections", json={"collection_name": "n"}) for _ in range(5)]
            answers += await asyncio.gather(*made)
        answers.append(await client.get("/projects/p1/collections"))
        backfilled = json.loads(
            (
                await asyncio.to_thread(complete, env, "-m", "worker.backfill", "--wait", "--json")
            ).splitlines()[-1]
        )
        audited = await asyncio.to_thread(complete, env, "-m", "worker.audit", "--connections", "2", "--json")
        await asyncio.to_thread(complete, env, "-m", "worker.dead_letters", "list")
        await drained(sql)
    assert {answer.status_code for answer in answers} == {200}
    assert backfilled["enqueued"] > 0
    assert json.loads(audited.splitlines()[-1])["verdict"] == "in_sync"
    assert await drift(sql) == []


async def test_creations_with_a_key_and_long_lists_work_through_it(
    pooled_settings: Settings, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seed_recorded(sql)
    monkeypatch.setattr(listing, "AT_ONCE", 1)
    keyed = {**OWNER, "Idempotency-Key": "k"}
    async with started(create_app(pooled_settings)) as client:
        before = (await client.get(ALL, headers=OWNER)).json()
        made = await asyncio.gather(
            *(client.post(ALL, headers=keyed, json={"collection_name": "new"}) for _ in range(8))
        )
        assert len({(answer.status_code, answer.content) for answer in made}) == 1
        after = (await client.get(ALL, headers=OWNER)).json()
        behind = await client.get(f"{ALL}?after={before[0]['collection_id']}", headers=OWNER)
    assert [item["collection_name"] for item in after[len(before) :]] == ["new"]
    assert after[: len(before)] == before
    assert behind.json() == after[1:]


async def test_migrations_run_through_it(databases: Databases, redis_url: str, pooled: Poolers) -> None:
    with databases.clone("template0") as url:
        complete(environment(url, redis_url, **pooled.way_to(url)), "-m", "alembic", "upgrade", "head")
        sql = await asyncpg.connect(url)
        assert await sql.fetchval("SELECT to_regclass('outbox_events') IS NOT NULL")
        await sql.close()


async def test_a_rollback_finds_the_worker_although_an_idle_one_has_no_session(env: dict[str, str]) -> None:
    rollback = [SCRIPT, "--rollback", "--yes"]
    async with running_worker(env) as worker:
        await worker.wait_for("worker_heartbeat")
        with running(rollback, env) as refused:
            assert await refused.exit_code() == 1
        assert f":{worker.pid}" in refused.output
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0
    complete(env, *rollback)


async def test_an_api_that_is_mounted_refuses_as_well(
    settings: Settings, postgres: Postgres, tmp_path: Path
) -> None:
    with pooler(tmp_path, postgres) as between:
        way = between.way_to(make_url(settings.database_url.get_secret_value()))
        wrong = settings.model_copy(update={"database_url": SecretStr(way)})
        with pytest.raises(PoolerError, match=ADVICE):
            async with collection_sync(FastAPI(), wrong):
                pass
