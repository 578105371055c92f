"""`--repair-sequences` after a restore without sequences, on which the processes refuse to start."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import asyncpg
import pytest

from tests.forked import run
from tests.processes import HANG_SECONDS, environment, running_worker

# As a restore leaves it that has the tables' rows and no SEQUENCE SET.
RESTORED = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
        SELECT 'c', 'collection.updated', 'api', '{}' FROM generate_series(1, 30);
    INSERT INTO worker_processes (name, ended_at) SELECT 'w', now() FROM generate_series(1, 3);
    SELECT setval('outbox_events_id_seq', 1, false), setval('worker_processes_id_seq', 1, false);
"""
BEHIND = ("outbox_events_id_seq", "worker_processes_id_seq")


@pytest.fixture
async def restored(sql: asyncpg.Connection, urls: dict[str, str]) -> dict[str, str]:
    """The logins' addresses of such a database."""
    await sql.execute(RESTORED)
    return urls


async def repair(url: str, *arguments: str) -> Any:  # noqa: ANN401 - of subprocess
    env = environment(url, "redis://127.0.0.1:1")
    return await asyncio.to_thread(run, ["-m", "worker.preflight", "--repair-sequences", *arguments], env)


async def state_of(sql: asyncpg.Connection) -> Mapping[str, int]:
    return {name: await sql.fetchval(f"SELECT last_value FROM {name}") for name in BEHIND}  # noqa: S608


async def test_the_owner_repairs_what_the_check_names_and_nothing_is_left(
    restored: dict[str, str], database_url: str, redis_url: str, sql: asyncpg.Connection
) -> None:
    del restored
    printed = await asyncio.to_thread(
        run, ["-m", "worker.preflight", "--json"], environment(database_url, redis_url)
    )
    (check,) = [check for check in json.loads(printed.stdout)["checks"] if check["name"] == "sequences"]
    done = await repair(database_url)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.removeprefix("done: ") for line in lines if line.startswith("done: ")] == check[
        "fix"
    ].splitlines()
    assert lines[-1] == "Every sequence is right."
    assert await state_of(sql) == {"outbox_events_id_seq": 1_030, "worker_processes_id_seq": 1_003}
    done = await repair(database_url, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"done": [], "left": [], "unread": []})


async def test_a_worker_that_refused_to_work_does_so_after_the_repair(
    restored: dict[str, str], database_url: str, redis_url: str, sql: asyncpg.Connection
) -> None:
    async with running_worker(environment(restored["worker"], redis_url)) as worker:
        assert (await worker.wait_for("batch_failed"))["error"] == "UnfitServerError"
        assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 30
        assert (await repair(database_url)).returncode == 0
        async with asyncio.timeout(HANG_SECONDS):
            while await sql.fetchval("SELECT count(*) FROM outbox_events"):
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("role", ["operator", "worker", "api"])
async def test_a_login_that_may_not_prints_what_the_owner_is_to_run(
    role: str, restored: dict[str, str], sql: asyncpg.Connection
) -> None:
    before = await state_of(sql)
    done = await repair(restored[role])
    assert (done.returncode, done.stderr) == (1, "")
    assert "Let the owner of the tables run:" in done.stdout
    assert await state_of(sql) == before
    for line in done.stdout.partition("owner of the tables run:\n")[2].splitlines():
        if line.startswith("SELECT setval("):
            await sql.execute(line)
    if role == "api":
        assert "Not read: worker_processes_id_seq, project_collections_id_seq." in done.stdout
        assert (await state_of(sql))["outbox_events_id_seq"] > before["outbox_events_id_seq"]
    else:
        assert (await repair(restored[role], "--json")).returncode == 0
