"""A dump taken while events wait, restored elsewhere: versions go on from where they were."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from deploy.local.postgres import Postgres
from shared.postgres.database import create_engine
from shared.postgres.sequences import read_sequences
from shared.settings import Settings
from tests.acceptance.conftest import SettingsFor
from tests.audit.pairs import audited, found
from tests.audit.test_repair import relaying
from tests.conftest import FAST
from tests.databases import Databases
from tests.draining import drain
from tests.drift import drained, drift
from tests.engines import binaries
from tests.forked import run
from tests.legacy_rows import seed, set_collection
from tests.processes import HANG_SECONDS, environment, free_port, running
from worker.relay.outcomes import Outcome

AUDIT = ["-m", "worker.audit"]
CHANGES = "/collections/changes"


@pytest.fixture
async def before(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    """Collections that were applied, one that was deleted, and events that wait."""
    await seed(sql)
    for key in ("changes", "waits", "gone"):
        await set_collection(engine, key, "applied")
    await set_collection(engine, "gone", is_active=False)
    await drain(engine)
    await set_collection(engine, "waits", "not applied yet")


@pytest.fixture
async def audited_before(before: None, engine: AsyncEngine) -> None:
    del before
    await audited(engine)


def restore(postgres: Postgres, url: str, into: str, *options: str) -> None:
    """Dump the database as SQL and run that in another one."""
    load_made_by(postgres, [str(postgres.binary("pg_dump")), *options, "--dbname", url], into)


def load_made_by(postgres: Postgres, command: list[str], into: str) -> None:
    """Run the SQL that a command writes, but for what a server older than the command may not know."""
    load = [str(postgres.binary("psql")), "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", into]
    lines = subprocess.run(command, check=True, capture_output=True).stdout.splitlines(keepends=True)
    known = [line for line in lines if not line.startswith(b"SET transaction_timeout = 0")]
    subprocess.run(load, check=True, capture_output=True, input=b"".join(known))


@pytest.mark.usefixtures("before")
async def test_after_a_restore_new_events_are_newer_than_what_was_applied_before_the_dump(
    postgres: Postgres, databases: Databases, database_url: str, settings_for: SettingsFor
) -> None:
    with databases.clone("template0") as elsewhere:
        await asyncio.to_thread(restore, postgres, database_url, elsewhere)
        engine = create_engine(
            settings_for(elsewhere), application_name="test", pool_size=5, statement_timeout_seconds=30
        )
        sql = await asyncpg.connect(elsewhere)
        highest = await sql.fetchval("SELECT max(version) FROM applied_versions")
        pending = await sql.fetchval("SELECT max(id) FROM outbox_events")
        assert pending > highest
        assert await set_collection(engine, "changes", "after the restore") > pending
        assert await set_collection(engine, "gone", "brought back") > pending
        assert await drain(engine) == {Outcome.APPLIED: 3}
        assert await drift(sql) == []
        await sql.close()
        await engine.dispose()


@pytest.mark.usefixtures("before")
async def test_where_versions_began_anew_the_audit_shows_what_no_event_can_change(
    settings: Settings, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    """As sessions from before see it, whose sequences were moved under them: for seconds nobody looks."""
    await drain(engine)
    await sql.execute("UPDATE applied_versions SET version = version + 1000")
    unaware = create_engine(
        settings,
        application_name="test",
        pool_size=20,
        statement_timeout_seconds=30,
        checks_sequences=False,
    )
    await set_collection(unaware, "changes", "too low a version")
    assert await drain(unaware) == {Outcome.STALE: 1}
    async with relaying(unaware):
        audit = await audited(unaware, repair=True)
    assert (audit.verdict, audit.mismatched, audit.repaired) == ("drift", 1, 0)
    assert await found(sql) == {"changes": "mismatched"}
    [cure] = [fault.cure for sequence in await read_sequences(sql) for fault in sequence.faults]
    await sql.execute(cure)
    async with relaying(engine):
        audit = await audited(engine, repair=True)
    assert (audit.verdict, audit.repaired) == ("repaired", 1)
    await unaware.dispose()


def restore_without_sequences(postgres: Postgres, url: str, into: str, archive: Path) -> None:
    """Restore all but where sequences were, as whoever restores table by table, or switches over, does."""
    dump = [str(postgres.binary("pg_dump")), "--format=custom", f"--file={archive}", "--dbname", url]
    subprocess.run(dump, check=True, capture_output=True)
    load = [str(postgres.binary("pg_restore")), "--exit-on-error"]
    listed = subprocess.run([*load, "--list", archive], check=True, capture_output=True, text=True).stdout
    wanted = [line for line in listed.splitlines(keepends=True) if "SEQUENCE SET" not in line]
    assert len(wanted) < len(listed.splitlines())
    archive.with_suffix(".list").write_text("".join(wanted))
    chosen = ["--use-list", str(archive.with_suffix(".list")), "--file=-"]
    load_made_by(postgres, [*load, *chosen, str(archive)], into)


async def told_by(url: str) -> tuple[int, str | None]:
    """Wait for an answer of /readyz; return its status and what is to be done about PostgreSQL."""
    async with asyncio.timeout(HANG_SECONDS), httpx.AsyncClient() as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await client.get(f"{url}/readyz")
                return answer.status_code, answer.json()["checks"]["postgresql"]["what_to_do"]
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def restored(
    postgres: Postgres, databases: Databases, database_url: str, directory: Path
) -> AsyncIterator[str]:
    """Make another database, with all that is there by now but where sequences are."""
    with databases.clone("template0") as elsewhere:
        archive = directory / "dump"
        await asyncio.to_thread(restore_without_sequences, postgres, database_url, elsewhere, archive)
        yield elsewhere


async def all_copied(subscribing: asyncpg.Connection) -> None:
    """Wait until a subscription has what was there before it, and follows."""
    async with asyncio.timeout(HANG_SECONDS):
        while await subscribing.fetchval("SELECT bool_or(srsubstate <> 'r') FROM pg_subscription_rel"):
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def switched_over(
    postgres: Postgres, _databases: Databases, database_url: str, directory: Path
) -> AsyncIterator[str]:
    """Make a database that subscribed to all that is there by now: of sequences replication knows nothing."""
    with Postgres(directory / "server", settings=FAST | {"wal_level": "logical"}) as server:
        origin, subscriber = server.url_of("origin"), server.url_of("subscriber")
        admin = await asyncpg.connect(server.url)
        for name in ("origin", "subscriber"):
            await admin.execute(f"CREATE DATABASE {name}")
        await asyncio.to_thread(restore, postgres, database_url, origin)
        await asyncio.to_thread(restore, postgres, database_url, subscriber, "--schema-only")
        publishing, subscribing = await asyncpg.connect(origin), await asyncpg.connect(subscriber)
        await publishing.execute("CREATE PUBLICATION moved FOR ALL TABLES")
        # Both are of one server, so the slot cannot be made by the subscription itself.
        await publishing.execute("SELECT pg_create_logical_replication_slot('moved', 'pgoutput')")
        await subscribing.execute(
            f"CREATE SUBSCRIPTION moved CONNECTION '{origin}' PUBLICATION moved WITH (create_slot = false)"
        )
        await all_copied(subscribing)
        await subscribing.execute("DROP SUBSCRIPTION moved")
        for connection in (admin, publishing, subscribing):
            await connection.close()
        yield subscriber


@contextlib.asynccontextmanager
async def upgraded(
    postgres: Postgres, _databases: Databases, database_url: str, directory: Path
) -> AsyncIterator[str]:
    """Move all that is there by now to PostgreSQL 15, and by a subscription from there to 17."""
    with (
        Postgres(directory / "15", settings=FAST | {"wal_level": "logical"}, binaries=binaries(15)) as old,
        Postgres(directory / "17", settings=FAST | {"wal_level": "logical"}, binaries=binaries(17)) as new,
    ):
        await asyncio.to_thread(restore, postgres, database_url, old.url)
        await asyncio.to_thread(restore, postgres, old.url, new.url, "--schema-only")
        publishing, subscribing = await asyncpg.connect(old.url), await asyncpg.connect(new.url)
        assert [(await each.fetchval("SHOW server_version"))[:2] for each in (publishing, subscribing)] == [
            "15",
            "17",
        ]
        await publishing.execute("CREATE PUBLICATION moved FOR ALL TABLES")
        await subscribing.execute(f"CREATE SUBSCRIPTION moved CONNECTION '{old.url}' PUBLICATION moved")
        await all_copied(subscribing)
        await subscribing.execute("DROP SUBSCRIPTION moved")
        for connection in (publishing, subscribing):
            await connection.close()
        yield new.url


@pytest.fixture(
    params=[restored, switched_over, pytest.param(upgraded, marks=pytest.mark.long)],
    ids=["restored", "switched over", "upgraded from 15 to 17"],
)
async def left_behind(
    request: pytest.FixtureRequest,
    postgres: Postgres,
    databases: Databases,
    database_url: str,
    tmp_path: Path,
) -> AsyncIterator[str]:
    """A database whose sequences stayed behind."""
    async with request.param(postgres, databases, database_url, tmp_path) as url:
        yield url


WRITTEN = "SELECT (SELECT count(*) FROM outbox_events), (SELECT count(*) FROM audit_runs)"


@pytest.mark.usefixtures("before", "audited_before")
async def test_where_sequences_stayed_behind_nothing_is_written_until_they_are_cured_as_is_told(
    left_behind: str, redis_url: str
) -> None:
    env, url = environment(left_behind, redis_url), f"http://127.0.0.1:{(port := free_port())}"
    serve = ["-m", "uvicorn", "api.main:app", "--port", str(port), "--no-access-log"]
    sql = await asyncpg.connect(left_behind)
    before = await sql.fetchrow(WRITTEN)
    assert all(before)
    with running(serve, env), running(["-m", "worker"], env) as worker:
        status, told = await told_by(url)
        assert (status, told is not None) == (503, True)
        assert "outbox_events_id_seq is behind" in str(told)
        async with httpx.AsyncClient(base_url=f"{url}/projects/p1", headers={"User-ID": "owner"}) as client:
            for _ in range(40):
                assert (await client.put(CHANGES, json={"description": "before"})).status_code == 503
            beat = await worker.wait_for("worker_heartbeat")
            assert (beat["database"], beat["hint"]) == ("unfit", told)
            assert (await worker.wait_for("batch_failed"))["hint"] == told
            refused = await asyncio.to_thread(run, AUDIT, env)
            assert (refused.returncode, refused.stderr.replace("\n", "")) == (1, told)
            assert await sql.fetchrow(WRITTEN) == before

            await sql.execute(str(told).partition("this SQL: ")[2])
            assert await told_by(url) == (200, None)
            for name in ("one", "another"):
                created = await client.post("/collections", json={"collection_name": name})
                assert created.status_code == 200
            assert (await client.put(CHANGES, json={"description": "after"})).status_code == 200
        await drained(sql)
    assert await drift(sql) == []
    assert (await asyncio.to_thread(run, AUDIT, env)).returncode == 0
    await sql.close()
