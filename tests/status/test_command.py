"""`python -m worker.status` as an operator types it."""

import asyncio
import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Mapping

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.forked import ROOT, run
from tests.legacy_rows import set_collection
from tests.log_lines import hold_printed
from tests.processes import HANG_SECONDS, environment, running
from tests.status.scenes import in_sync

STATUS = ["-m", "worker.status"]
ESCAPE = "\x1b]0;owned\x07[/b]"
DRIFT = "UPDATE audit_runs SET verdict = 'drift', missing = 1"


@pytest.fixture
def env(database_url: str) -> dict[str, str]:
    """Without Redis and without a log."""
    env = environment(database_url, "")
    del env["REDIS_URL"]
    return env


async def status(env: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    done = await asyncio.to_thread(run, [*STATUS, *words], env, timeout=HANG_SECONDS)
    hold_printed(done.stderr)
    return done


async def test_it_ends_with_0_where_all_is_well_and_with_1_and_what_to_type_where_not(
    env: dict[str, str], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await in_sync(engine, sql)
    well = await status(env)
    assert (well.returncode, well.stdout.splitlines()[0][:7]) == (0, "In sync")
    assert "\nNext:\n  python -m worker.phase status\n\n" in well.stdout
    for figure in (
        "schema", "workers", "live writes", "held up by", "backfill", "dead letters", "sequences", "phase",
    ):  # fmt: skip
        assert f"\n{figure}  " in well.stdout
    await sql.execute(DRIFT)
    ill = await status(env, "--json")
    (line,) = ill.stdout.splitlines()
    answer = json.loads(line)
    assert (ill.returncode, answer["verdict"], answer["may_go_on"]) == (1, "drift", False)
    assert answer["next_steps"] == ["python -m worker.audit --repair", "python -m worker.audit"]
    assert answer["sentence"].startswith("Drift: 1 pair differs")
    assert answer["lanes"]["live"] == {"pending": 0, "oldest_seconds": None}
    assert [worker["is_alive"] for worker in answer["workers"]] == [True]


async def test_it_tells_of_one_collection_and_nothing_that_was_written_steers_the_terminal(
    env: dict[str, str], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await in_sync(engine, sql)
    await set_collection(engine, "c1", ESCAPE)
    await sql.execute(
        "INSERT INTO worker_processes (name, ended_at) VALUES ($1, clock_timestamp())", f"host {ESCAPE}"
    )
    one = await status(env, "c1")
    assert (one.returncode, one.stdout.splitlines()[0][:10]) == (1, "On its way")
    assert "owned" in one.stdout
    whole = await status(env)
    assert "owned" in whole.stdout
    assert not {"\x1b", "\x07"} & {*one.stdout, *whole.stdout}
    assert json.loads((await status(env, "c2", "--json")).stdout)["verdict"] == "in_sync"
    assert (await status(env, "c2")).returncode == 0


async def test_wrong_usage_ends_with_2(env: dict[str, str]) -> None:
    assert (await status(env, "--watch", "c1")).returncode == 2
    assert (await status({**env, "DATABASE_URL": "nonsense"})).returncode == 2


async def test_a_database_that_is_away_is_a_verdict_too(env: dict[str, str]) -> None:
    away = await status({**env, "DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "--json")
    answer = json.loads(away.stdout)
    assert (away.returncode, answer["verdict"], answer["may_go_on"]) == (1, "database_away", False)


async def test_watching_says_each_verdict_once_and_ends_with_the_last(
    env: dict[str, str], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await in_sync(engine, sql)
    with running([*STATUS, "--watch"], env) as watching:

        async def until(word: str) -> None:
            async with asyncio.timeout(HANG_SECONDS):
                while not any(line.startswith(word) for line in watching.lines):
                    assert watching.process.poll() is None, watching.output
                    await asyncio.sleep(0.01)

        await until("In sync")
        await sql.execute(DRIFT)
        await until("Drift")
        watching.signal(signal.SIGINT)
        assert await watching.exit_code() == 1
    assert len(watching.lines) == 2


async def test_at_a_terminal_it_redraws(
    env: dict[str, str], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await in_sync(engine, sql)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "wb") as terminal:
        watching = subprocess.Popen(  # noqa: ASYNC220 - it starts in a moment
            [sys.executable, *STATUS, "--watch"],
            cwd=ROOT,
            env={**env, "TERM": "xterm"},
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=terminal,
        )
    os.set_blocking(ours, False)
    written = ""

    async def until(word: str) -> None:
        nonlocal written
        async with asyncio.timeout(HANG_SECONDS):
            while word not in written:
                with contextlib.suppress(BlockingIOError):
                    written += os.read(ours, 65_536).decode()
                await asyncio.sleep(0.01)

    try:
        await until("sequences")
        await sql.execute(DRIFT)
        await until("Drift")
        watching.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(watching.wait, HANG_SECONDS) == 1
    finally:
        watching.kill()
        watching.wait()
        os.close(ours)
    assert "\x1b[2K" in written
