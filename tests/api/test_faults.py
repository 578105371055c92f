"""What a client sees while PostgreSQL or Redis is away, busy or broken: never their own words."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from api import context
from api.context import ringing
from api.main import create_app
from deploy.local.postgres import Postgres
from shared.postgres import database
from shared.postgres.database import create_engine
from shared.redis.client import open_redis
from shared.redis.doorbell import Doorbell
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, SEEDED, create, started
from tests.api.recording import NAMES, seed
from tests.api.test_writes import WAITING, frozen, until
from tests.conftest import FAST
from tests.databases import MIGRATED
from tests.doorbell.place import nowhere
from tests.processes import HANG_SECONDS

UNAVAILABLE = {"detail": "The database is not available at the moment. Try again."}


def assert_unavailable(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()) == (503, UNAVAILABLE)
    assert answer.headers["Retry-After"] == "1"


@pytest.fixture
def own_server(cluster: Path, tmp_path: Path) -> Iterator[Postgres]:
    """A PostgreSQL that a test may stop."""
    shutil.copytree(cluster / "postgres", tmp_path / "postgres")
    with Postgres(tmp_path / "postgres", settings=FAST) as server:
        yield server


@pytest.fixture
def own_app(own_server: Postgres, redis_url: str) -> FastAPI:
    url = SecretStr(own_server.url_of(MIGRATED))
    return create_app(Settings(database_url=url, redis_url=SecretStr(redis_url)))


@pytest.fixture
async def own_client(own_server: Postgres, own_app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    sql = await asyncpg.connect(own_server.url_of(MIGRATED))
    await seed(sql)
    await sql.close()
    async with started(own_app) as client:
        yield client


async def test_while_postgresql_is_away_every_endpoint_answers_503_and_recovers_by_itself(
    own_server: Postgres, own_app: FastAPI, own_client: httpx.AsyncClient
) -> None:
    await create(own_client)
    await asyncio.wait_for(own_app.state.collection_sync.doorbell.rung(), HANG_SECONDS)
    own_server.stop()
    with capture_logs() as lines:
        for _ in range(2):  # first over a connection that broke, then without one
            assert_unavailable(await own_client.get(ALL, headers=OWNER))
            assert_unavailable(await own_client.get(f"{SEEDED}/sync", headers=OWNER))
            assert_unavailable(await own_client.post(ALL, headers=OWNER, json={"collection_name": "x"}))
            assert_unavailable(await own_client.put(SEEDED, headers=OWNER, json={}))
            assert_unavailable(await own_client.delete(SEEDED, headers=OWNER))
    assert {(line["event"], line["log_level"]) for line in lines} == {("database_unavailable", "warning")}
    assert {line["method"] for line in lines} == {"GET", "POST", "PUT", "DELETE"}
    invalid = await own_client.post(ALL, headers=OWNER, json={})
    assert invalid.status_code == 422
    own_server.start()
    assert (await own_client.get(ALL, headers=OWNER)).status_code == 200


async def test_no_request_fails_because_postgresql_was_restarted_before_it(
    own_server: Postgres, own_app: FastAPI, own_client: httpx.AsyncClient
) -> None:
    opened: list[DBAPIConnection] = []
    engine = own_app.state.collection_sync.engine.sync_engine
    event.listen(engine, "connect", lambda connection, _: opened.append(connection))
    await asyncio.gather(*(create(own_client) for _ in range(5)))  # over several connections
    own_server.stop()
    own_server.start()
    assert len(opened) > 1
    async with asyncio.timeout(HANG_SECONDS):  # the driver hears that they have ended
        while not all(connection.driver_connection.is_closed() for connection in opened):
            await asyncio.sleep(0.01)
    answers = [await own_client.put(SEEDED, headers=OWNER, json={}) for _ in range(5)]
    answers += [await own_client.get(ALL, headers=OWNER) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {200}


@contextmanager
def stopped_in_its_tracks(server: Postgres) -> Iterator[None]:
    """Freeze the server and all its sessions: connections stay open and nothing answers."""
    children = subprocess.run(
        ["pgrep", "-P", str(server.pid)],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
    )
    processes = [server.pid, *map(int, children.stdout.split())]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in reversed(processes):
            os.kill(process, signal.SIGCONT)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let statements and connections be given up after two seconds."""
    monkeypatch.setattr(database, "CONNECT_TIMEOUT_SECONDS", 1)

    def create_hasty_engine(settings: Settings, **options: Any) -> AsyncEngine:  # noqa: ANN401 - as the original
        return create_engine(settings, **options | {"statement_timeout_seconds": 1})

    monkeypatch.setattr(context, "create_engine", create_hasty_engine)


async def succeeds(client: httpx.AsyncClient) -> None:
    """Write until it went through: a machine that stands still makes a hasty client give up, too."""
    async with asyncio.timeout(HANG_SECONDS):
        while (await client.put(SEEDED, headers=OWNER, json={})).status_code != 200:
            await asyncio.sleep(0.05)


@pytest.mark.usefixtures("hasty")
async def test_a_postgresql_that_hangs_is_given_up_in_bounded_time(
    own_server: Postgres, own_client: httpx.AsyncClient
) -> None:
    await succeeds(own_client)
    with stopped_in_its_tracks(own_server):
        assert_unavailable(await own_client.put(SEEDED, headers=OWNER, json={}))
    await succeeds(own_client)


async def test_a_row_that_stays_locked_is_answered_with_503(
    seeded: asyncpg.Connection, settings: Settings, database_url: str
) -> None:
    await seeded.execute(f"ALTER DATABASE {database_url.rpartition('/')[2]} SET lock_timeout = '50ms'")
    async with started(create_app(settings)) as client, seeded.transaction():
        await seeded.execute("SELECT FROM collections FOR UPDATE")
        with capture_logs() as lines:
            assert_unavailable(await client.delete(SEEDED, headers=OWNER))
    assert [line["sqlstate"] for line in lines] == ["55P03"]


async def test_a_session_that_is_ended_in_mid_write_leaves_nothing_behind(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    async with frozen(seeded):
        put = asyncio.create_task(client.put(SEEDED, headers=OWNER, json={"collection_name": "x"}))
        await until(seeded, WAITING, 1)
        await seeded.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        assert_unavailable(await put)
    row = await seeded.fetchrow("SELECT * FROM collections WHERE collection_id = $1", NAMES["C_SEED"])
    assert row["collection_name"] == "Seeded"
    assert (await client.put(SEEDED, headers=OWNER, json={})).status_code == 200


async def test_an_unexpected_failure_tells_neither_the_client_nor_the_log_what_users_wrote(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    await seeded.execute("ALTER TABLE collections ADD CONSTRAINT odd CHECK (description <> 'Confidential')")
    with capture_logs() as lines:
        answer = await client.put(SEEDED, headers=OWNER, json={"description": "Confidential"})
    assert (answer.status_code, answer.json()) == (500, {"detail": "Internal Server Error"})
    (line,) = lines
    assert (line["event"], line["log_level"], line["sqlstate"]) == ("request_failed", "error", "23514")
    assert "carry_out" in line["frames"]
    assert "Confidential" not in str(line)


async def test_a_login_that_is_refused_because_its_password_is_being_changed_is_answered_with_503(
    settings: Settings, seeded: asyncpg.Connection
) -> None:
    del seeded
    url = make_url(settings.database_url.get_secret_value()).set(password="another")
    wrong = SecretStr(url.render_as_string(hide_password=False))
    async with started(create_app(settings.model_copy(update={"database_url": wrong}))) as client:
        assert_unavailable(await client.get(ALL, headers=OWNER))


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """Accept connections and never answer: Redis as it is when it hangs."""
    release = asyncio.Event()

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        release.set()


def who_asks(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the names of all tasks that ask for a connection to this Redis from now on."""
    pool = redis.connection_pool
    get_connection, names = pool.get_connection, set[str]()

    async def note_and_get(*arguments: object) -> object:
        task = asyncio.current_task()
        assert task is not None
        names.add(task.get_name())
        return await get_connection(*arguments)

    monkeypatch.setattr(pool, "get_connection", note_and_get)
    return names


@asynccontextmanager
async def absent_server() -> AsyncIterator[str]:
    yield "redis://127.0.0.1:1"


async def test_no_request_waits_for_redis_whether_it_is_away_or_hangs(
    settings: Settings, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for make in (absent_server, silent_server):
        async with AsyncExitStack() as server:
            url = SecretStr(await server.enter_async_context(make()))
            app = create_app(settings.model_copy(update={"redis_url": url}))
            async with started(app) as client:
                askers = who_asks(app.state.collection_sync.redis, monkeypatch)
                try:
                    async with asyncio.timeout(HANG_SECONDS / 2):  # it hangs for longer
                        for _ in range(5):
                            await create(client)
                        while not askers:
                            await asyncio.sleep(0.01)
                    assert askers == {"doorbell"}  # and it is nobody's business how long that waits
                finally:
                    await server.aclose()  # or the doorbell would not end: redis-py may not heed it
    assert await seeded.fetchval("SELECT count(*) FROM outbox_events") == 10


class BrokenDoorbell(Doorbell):
    """Ends at once."""

    async def run(self) -> None:
        msg = "broken"
        raise RuntimeError(msg)


async def test_the_end_of_the_doorbells_task_is_noticed(redis_url: str) -> None:
    with capture_logs() as lines:
        async with open_redis(redis_url) as redis, ringing(BrokenDoorbell(redis, nowhere())):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    assert lines == [{"event": "doorbell_stopped", "log_level": "error", "error": "RuntimeError"}]


async def test_the_app_stops_at_whatever_moment_of_a_ring_it_is_told_to(redis_url: str) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        for steps in list(range(25)) * 8:
            async with open_redis(redis_url) as redis, ringing(doorbell := Doorbell(redis, nowhere())):
                doorbell.press()
                for _ in range(steps):
                    await asyncio.sleep(0)
    assert "doorbell" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_a_server_that_protects_itself_is_answered_for_with_503(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    """As it does from wraparound of transaction ids: it refuses every write until it was vacuumed."""
    await seeded.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION USING ERRCODE = '54000'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON collections FOR EACH ROW EXECUTE FUNCTION refuse();
    """)
    answer = await client.post(ALL, headers=OWNER, json={"collection_name": "x"})
    assert (answer.status_code, answer.json()) == (503, UNAVAILABLE)
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    "missing",
    [
        "TRUNCATE collections CASCADE; ALTER TABLE collections ADD extra text NOT NULL",
        "ALTER TABLE outbox_events RENAME TO away",
    ],
    ids=["a default of somebody's column", "a table"],
)
async def test_what_the_schema_lacks_is_answered_for_with_503_and_the_log_says_what_to_do(
    missing: str, client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    await seeded.execute(missing)
    with capture_logs() as lines:
        answer = await client.post(ALL, headers=OWNER, json={"collection_name": "x"})
    assert (answer.status_code, answer.json()) == (503, UNAVAILABLE)
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("database_unavailable", "error")
    assert "extra" in line["hint"] or "alembic upgrade head" in line["hint"]
