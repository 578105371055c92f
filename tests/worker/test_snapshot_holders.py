"""The log names whoever keeps PostgreSQL from forgetting acknowledged events."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from structlog.testing import capture_logs
from structlog.typing import EventDict

from deploy.local.postgres import Postgres
from tests.draining import drain
from tests.engines import COUNTS_AT_ONCE
from tests.legacy_rows import set_collection
from worker.vitals.snapshot_holders import HELD_SECONDS, SnapshotWatch, held_snapshots

BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM users"


@asynccontextmanager
async def connected(database_url: str, **settings: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url, server_settings=settings)
    try:
        yield connection
    finally:
        await connection.close()


async def looks(watch: SnapshotWatch, times: int = 1) -> list[EventDict]:
    """Look so many times and return what was logged."""
    with capture_logs() as lines:
        for _ in range(times):
            await watch.look()
    return lines


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report what two looks in a row found."""
    monkeypatch.setattr("worker.vitals.snapshot_holders.HELD_SECONDS", 0.0001)


@COUNTS_AT_ONCE
async def test_a_session_that_left_a_transaction_open_is_named_once_and_again_when_it_lets_go(
    database_url: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    watch = SnapshotWatch(engine)
    async with connected(database_url, application_name="someone's notebook") as holder:
        await holder.execute(BEGIN)
        await set_collection(engine, "c1")
        await drain(engine)
        await sql.execute("SELECT pg_stat_force_next_flush()")
        first, *others = await looks(watch, 5)
        assert others == []
        assert first.pop("held_seconds") >= 0
        assert first.pop("dead_events") is not None
        assert first == {
            "event": "snapshot_held",
            "log_level": "warning",
            "kind": "session",
            "pid": holder.get_server_pid(),
            "name": None,
            "user": "postgres",
            "application_name": "someone's notebook",
            "database": database_url.rpartition("/")[2],
            "state": "idle in transaction",
        }
        await holder.execute("COMMIT")
        (last,) = await looks(watch, 2)
    assert (last["event"], last["pid"], last["log_level"]) == ("snapshot_released", first["pid"], "info")


async def test_it_is_named_again_each_minute_while_it_lasts(
    database_url: str, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.vitals.snapshot_holders.REMIND_SECONDS", 0.0001)
    watch = SnapshotWatch(engine)
    async with connected(database_url) as holder:
        await holder.execute(BEGIN)
        await set_collection(engine, "c1")
        lines = await looks(watch, 4)
    assert [line["event"] for line in lines] == ["snapshot_held"] * 3
    assert sorted(line["held_seconds"] for line in lines) == [line["held_seconds"] for line in lines]


async def test_nobody_is_named_before_ten_seconds(
    database_url: str, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert HELD_SECONDS == 10
    monkeypatch.setattr("worker.vitals.snapshot_holders.HELD_SECONDS", 3600.0)
    async with connected(database_url) as holder:
        await holder.execute(BEGIN)
        await set_collection(engine, "c1")
        assert await looks(SnapshotWatch(engine), 3) == []


async def test_a_transaction_that_wrote_is_named_although_it_holds_no_snapshot(
    database_url: str, engine: AsyncEngine
) -> None:
    async with connected(database_url) as holder:
        await holder.execute("BEGIN; CREATE TABLE unfinished ()")
        await set_collection(engine, "c1")
        (line,) = await looks(SnapshotWatch(engine), 2)
    assert line["pid"] == holder.get_server_pid()


async def test_a_session_whose_snapshots_are_new_each_time_is_not_named(
    database_url: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    """Busy is not idle: each of its statements lets go of what the one before held."""
    watch = SnapshotWatch(engine)
    async with connected(database_url) as busy:
        lines: list[EventDict] = []
        for number in range(3):
            await set_collection(engine, f"c{number}")
            await busy.execute(BEGIN)
            await set_collection(engine, f"d{number}")
            assert busy.get_server_pid() in {holder.pid for holder in await held_snapshots(engine)}
            lines += await looks(watch)
            await busy.execute("COMMIT")
    assert lines == []
    assert sql.get_server_pid() not in {holder.pid for holder in await held_snapshots(engine)}


async def test_what_keeps_nothing_of_ours_is_not_named(
    database_url: str, postgres: Postgres, engine: AsyncEngine
) -> None:
    async with connected(postgres.url) as elsewhere, connected(database_url) as idle:
        await elsewhere.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM pg_class")
        await idle.execute("BEGIN")
        await set_collection(engine, "c1")
        assert await looks(SnapshotWatch(engine), 2) == []


@pytest.fixture
async def unprivileged(database_url: str, sql: asyncpg.Connection) -> AsyncIterator[AsyncEngine]:
    """Sessions of a role that may do nothing but connect."""
    role = f"nobody_{database_url.rpartition('/')[2]}"
    await sql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'nothing'")
    address = database_url.rpartition("@")[2]
    engine = create_async_engine(f"postgresql+asyncpg://{role}:nothing@{address}")
    yield engine
    await engine.dispose()
    await sql.execute(f"DROP ROLE {role}")


async def test_a_role_without_privileges_names_the_holder_too_by_its_own_observation(
    database_url: str, engine: AsyncEngine, unprivileged: AsyncEngine
) -> None:
    async with connected(database_url, application_name="someone's notebook") as holder:
        await holder.execute(BEGIN)
        await set_collection(engine, "c1")
        (line,) = await looks(SnapshotWatch(unprivileged), 2)
    named: dict[str, Any] = {name: line[name] for name in ("pid", "user", "application_name", "state")}
    assert named == {
        "pid": holder.get_server_pid(),
        "user": "postgres",
        "application_name": "someone's notebook",
        "state": None,  # not for it to see
    }


async def test_a_prepared_transaction_is_named(tmp_path: Path) -> None:
    with Postgres(
        tmp_path / "postgres", settings={"max_prepared_transactions": "2", "fsync": "off"}
    ) as server:
        engine = create_async_engine(server.url.replace("postgresql://", "postgresql+asyncpg://"))
        async with connected(server.url) as sql:
            await sql.execute("CREATE TABLE forgotten ()")
            await sql.execute("BEGIN; DROP TABLE forgotten; PREPARE TRANSACTION 'left behind'")
            await sql.execute("CREATE TABLE later ()")
            (line,) = await looks(SnapshotWatch(engine), 2)
        await engine.dispose()
    assert (line["kind"], line["name"], line["user"]) == ("prepared_transaction", "left behind", "postgres")
