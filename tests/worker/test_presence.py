"""What a worker does each second of its own accord, as a real process and with no Redis at all."""

import asyncio
import signal

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.draining import drain
from tests.drift import drift
from tests.legacy_rows import set_collection
from tests.processes import HANG_SECONDS, environment, running, running_worker
from tests.worker.events import append_raw
from worker.vitals.presence import Presence


@pytest.fixture
def env(database_url: str) -> dict[str, str]:
    return environment(database_url, "redis://127.0.0.1:1")


async def test_a_worker_is_there_while_it_lives_and_says_when_it_ends(
    sql: asyncpg.Connection, env: dict[str, str], engine: AsyncEngine
) -> None:
    row = "SELECT name, heartbeat_at, ended_at FROM worker_processes ORDER BY id DESC LIMIT 1"
    async with running_worker(env) as worker, asyncio.timeout(HANG_SECONDS):
        while (first := await sql.fetchrow(row)) is None:
            await asyncio.sleep(0.05)
        assert f":{worker.pid}:" in first["name"]
        while (await sql.fetchrow(row))["heartbeat_at"] == first["heartbeat_at"]:
            await asyncio.sleep(0.05)
        assert (await sql.fetchrow(row))["ended_at"] is None
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0
        assert (await sql.fetchrow(row))["ended_at"] is not None

    async with running_worker(env) as killed, asyncio.timeout(HANG_SECONDS):
        while not (await sql.fetchrow(row))["name"].count(f":{killed.pid}:"):
            await asyncio.sleep(0.05)
        killed.kill()
    assert (await sql.fetchrow(row))["ended_at"] is None
    await sql.execute("UPDATE worker_processes SET heartbeat_at = heartbeat_at - interval '4 seconds'")
    assert await Presence(engine, "next:1").arrive() == 1


async def test_a_process_that_was_silent_for_an_hour_and_forgotten_arrives_again(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    stopped, other = Presence(engine, "stopped:1"), Presence(engine, "other:1")
    await stopped.arrive()
    await sql.execute("UPDATE worker_processes SET heartbeat_at = heartbeat_at - interval '61 minutes'")
    await other.arrive()
    assert await sql.fetchval("SELECT array_agg(name) FROM worker_processes") == ["other:1"]
    await stopped.beat()
    assert await sql.fetchval("SELECT count(*) FROM worker_processes") == 2


async def test_a_worker_closes_a_letter_soon_after_it_applied_what_is_newer(
    engine: AsyncEngine, sql: asyncpg.Connection, env: dict[str, str]
) -> None:
    await set_collection(engine, "c1", "v4")
    letter = await append_raw(sql, "c1", created_at="never")
    await drain(engine)
    async with running_worker(env) as worker:
        await set_collection(engine, "c1", "v6")
        superseded = await worker.wait_for("dead_letters_superseded")
    assert superseded["letters"] == 1
    assert await sql.fetchval("SELECT state FROM outbox_dead_letters WHERE id = $1", letter) == "superseded"
    assert await drift(sql) == []


async def test_a_row_that_an_operator_holds_delays_no_other_row_by_more_than_seconds(
    engine: AsyncEngine, sql: asyncpg.Connection, env: dict[str, str]
) -> None:
    await set_collection(engine, "held")
    await drain(engine)
    async with sql.transaction(), running_worker(env) as worker:
        await sql.execute("SELECT FROM project_collections WHERE collection_id = 'held' FOR UPDATE")
        await set_collection(engine, "held", "waits")
        await set_collection(engine, "free", "does not")
        settled = await worker.wait_for("event_settled")
        assert (settled["collection_id"], settled["outcome"]) == ("free", "applied")
        assert (await worker.wait_for("events_postponed"))["sqlstate"] == "55P03"


async def test_a_worker_names_who_holds_a_snapshot(
    sql: asyncpg.Connection, env: dict[str, str], database_url: str
) -> None:
    holder = await asyncpg.connect(database_url, server_settings={"application_name": "somebody's notebook"})
    with running(["-m", "tests.worker.watchful"], env) as worker:
        async with holder.transaction(isolation="repeatable_read"):
            await holder.fetchval("SELECT count(*) FROM collections")
            await sql.execute("CREATE TABLE something ()")  # or the snapshot would hold nothing back
            held = await worker.wait_for("snapshot_held")
        assert (held["application_name"], held["pid"]) == ("somebody's notebook", holder.get_server_pid())
        await worker.wait_for("snapshot_released")
    await holder.close()
