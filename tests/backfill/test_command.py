import asyncio
import codecs
import contextlib
import json
import os
import platform
import pty
import signal
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.backfill_runs import MOST_RUNS, BackfillOptions
from shared.settings import CommandSettings
from tests.backfill.driving import (
    RATE,
    ROWS,
    backfilled,
    being_driven,
    current,
    never_overdue,
    started,
    until_row,
)
from tests.backfill.rows import EXPECTED, UNTOUCHED, enqueued, fingerprints, insert_many, insert_mixed_rows
from tests.draining import drain
from tests.drift import drift
from tests.forked import ROOT, run
from tests.log_lines import hold_printed
from tests.processes import HANG_SECONDS, Running, running
from worker.backfill import control
from worker.backfill.options import parse

BACKFILL = ["-m", "worker.backfill"]
WAITS = "waits: 10 backfill events are pending, the most allowed"
REFUSE_ONE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'never'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON project_collections FOR EACH ROW
        WHEN (NEW.collection_id = 'c-0000002') EXECUTE FUNCTION refuse();
"""


@dataclass
class Completed:
    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """What the one line on stdout says."""
        assert self.stdout.count("\n") == 1, self.stdout
        result: dict[str, Any] = json.loads(self.stdout)
        return result


async def backfill(env: dict[str, str], *words: str) -> Completed:
    """Run the command to its end."""
    done = await asyncio.to_thread(run, [*BACKFILL, *words], env, timeout=HANG_SECONDS)
    hold_printed(done.stderr)
    return Completed(done.returncode, done.stdout, done.stderr)


@contextlib.asynccontextmanager
async def slow_run(env: dict[str, str], sql: asyncpg.Connection) -> AsyncIterator[Running]:
    """Run the command so slowly that it cannot end before the block does; its driver never seems silent."""
    await insert_many(sql, "c", ROWS)
    await never_overdue(sql)
    with running([*BACKFILL, "--rate", str(RATE)], env) as process:
        await until_row(sql, "processed > 0")
        yield process


@contextlib.asynccontextmanager
async def draining(engine: AsyncEngine) -> AsyncIterator[None]:
    """Apply what is pending several times a second while the block lasts."""

    async def repeatedly() -> None:
        while True:
            await drain(engine)
            await asyncio.sleep(0.05)

    worker = asyncio.create_task(repeatedly())
    try:
        yield
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


async def test_a_run_ends_with_one_line_for_machines_and_needs_no_redis(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    await insert_mixed_rows(sql)
    began_at = await sql.fetchval("SELECT clock_timestamp()")
    done = await backfill(env, "--json")
    passed = await sql.fetchval("SELECT clock_timestamp() - $1::timestamptz", began_at)
    assert done.code == 0
    expected = {kind: len(names) for kind, names in EXPECTED.items()}
    total = sum(expected.values())
    assert (
        done.json.items()
        >= (
            expected | {"processed": total + len(UNTOUCHED), "enqueued": total, "skipped": len(UNTOUCHED)}
        ).items()
    )
    assert done.json.items() >= {"run_id": 1, "status": "finished", "planned": total + len(UNTOUCHED)}.items()
    assert 0 < done.json["duration_seconds"] <= passed.total_seconds() + 0.001  # it is rounded
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert events == ["backfill_started", "backfill_chunk", "backfill_finished"]


async def test_a_redis_that_is_away_costs_nothing(env: dict[str, str], sql: asyncpg.Connection) -> None:
    await insert_many(sql, "c", 10)
    done = await backfill({**env, "REDIS_URL": "redis://127.0.0.1:1"})  # it never comes: nobody waits for it
    assert done.code == 0
    assert "Backfill 1: 10 of 10 rows looked at, 10 enqueued (10 missing, 0 mismatched" in done.stdout


async def test_a_dry_run_says_what_a_run_would_do_and_leaves_no_trace(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    await insert_mixed_rows(sql)
    before = await fingerprints(sql)
    dry = await backfill(env, "--dry-run", "--json")
    assert await fingerprints(sql) == before
    assert dry.code == 0
    assert (dry.json["dry_run"], dry.json["status"]) == (True, "finished")
    real = await backfill(env, "--json")
    counts = ("planned", "processed", "enqueued", "skipped", *EXPECTED)
    assert {name: dry.json[name] for name in counts} == {name: real.json[name] for name in counts}


async def test_a_dry_run_can_be_of_one_project_and_is_readable(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 9)
    done = await backfill(env, "--dry-run", "--project", "p2")
    assert done.code == 0
    assert done.stdout == (
        "Dry run: of 3 rows 3 would be enqueued (3 missing, 0 mismatched, 0 orphaned), 0 need nothing."
        " Nothing was written.\n"
    )


async def test_a_project_that_does_not_exist_is_refused(env: dict[str, str], sql: asyncpg.Connection) -> None:
    runs = ["--project", "typo"], ["--project", "typo", "--dry-run"]
    for done in await asyncio.gather(*(backfill(env, *words) for words in runs)):
        assert (done.code, done.stdout) == (1, "")
        assert "There is no project 'typo'." in done.stderr
    assert await sql.fetchval("SELECT count(*) FROM backfill_runs") == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_run_says_how_to_go_on_and_does_so_at_once(
    number: signal.Signals, env: dict[str, str], sql: asyncpg.Connection
) -> None:
    async with slow_run(env, sql) as process:
        process.signal(number)
        assert await process.exit_code() == 1
    assert "Go on with `python -m worker.backfill --resume`" in process.output
    assert process.logged("backfill_interrupted")
    left = await sql.fetchrow("SELECT * FROM backfill_runs")
    assert (left["status"], left["processed"]) == ("running", len(await enqueued(sql)))

    await sql.execute("UPDATE backfill_runs SET rate = NULL")
    done = await backfill(env, "--resume", "--json")  # at once: by silence it would never be free
    assert (done.code, done.json["run_id"], done.json["enqueued"]) == (0, 1, ROWS)
    assert set((await enqueued(sql)).values()) == {1}


async def test_a_run_that_is_driven_is_neither_resumed_nor_doubled(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    async with slow_run(env, sql) as process:
        resumption, another = await asyncio.gather(backfill(env, "--resume"), backfill(env))
        for refused in (resumption, another):
            assert (refused.code, refused.stdout) == (1, "")
            said = f"Backfill 1 is being run by a command on {platform.node()} (pid {process.pid})."
            assert said in refused.stderr
        assert process.process.poll() is None


@pytest.mark.parametrize(
    ("word", "status", "advice"),
    [
        ("--pause", "paused", "Go on with `python -m worker.backfill --resume`"),
        ("--cancel", "cancelled", "anew"),
    ],
)
async def test_a_run_is_stopped_by_another_command(
    word: str, status: str, advice: str, env: dict[str, str], sql: asyncpg.Connection
) -> None:
    async with slow_run(env, sql) as process:
        stopping = await backfill(env, word)
        assert await process.exit_code() == 1
    assert stopping.code == 0
    assert f"Backfill 1 {'is' if status == 'paused' else 'was'} {status}." in stopping.stdout
    assert advice in process.output
    assert process.logged(f"backfill_{status}")
    assert await sql.fetchval("SELECT status FROM backfill_runs") == status


async def test_a_run_of_the_workers_is_only_created(env: dict[str, str], sql: asyncpg.Connection) -> None:
    done = await backfill(env, "--in-worker", "--rate", "5", "--json")
    assert (done.code, done.json["in_worker"], done.json["is_driven"]) == (0, True, False)
    assert (await backfill(env, "--pause")).code == 0
    handed_over = await backfill(env, "--resume", "--in-worker")
    assert handed_over.stdout == "Backfill 1 is left to the workers. Follow it with --follow.\n"
    row = await sql.fetchrow("SELECT status, in_worker, driver FROM backfill_runs")
    assert tuple(row) == ("running", True, None)


async def test_the_status_tells_people_and_machines(
    env: dict[str, str], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    nothing = await backfill(env, "--status")
    assert (nothing.code, nothing.stdout) == (0, "No backfill has run yet.\n")
    await insert_many(sql, "c", ROWS)
    await never_overdue(sql)
    async with being_driven(engine, BackfillOptions(rate=RATE)):
        await until_row(sql, "processed > 0")
        shown, as_json = await asyncio.gather(backfill(env, "--status"), backfill(env, "--status", "--json"))
    for words in (
        "state         running",
        f"of {ROWS:,} rows",
        "rows/s",
        f"{RATE} rows/s; 20,000 pending events",
        f"held back     slowed by its rate of {RATE} rows/s",
        f"run by        a command on {platform.node()} (pid {os.getpid()})",
    ):
        assert words in shown.stdout
    assert as_json.json["is_driven"] is True
    assert as_json.json["rows_a_second"] >= 0

    left = await backfill(env, "--status")
    assert "left unfinished: go on with --resume" in left.stdout


async def test_the_status_s_speed_is_that_of_the_rows_done_while_it_looks(
    engine: AsyncEngine,
    sql: asyncpg.Connection,
    env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 100.0

    async def rest(_: asyncio.Event, seconds: float) -> None:
        nonlocal now
        now += seconds
        await sql.execute("UPDATE backfill_runs SET processed = processed + 10, skipped = skipped + 10")

    monkeypatch.setattr(control, "rest", rest)
    monkeypatch.setattr("worker.backfill.speed.time", SimpleNamespace(monotonic=lambda: now))
    await started(engine)
    await never_overdue(sql)
    await sql.execute("UPDATE backfill_runs SET driver_token = gen_random_uuid(), heartbeat_at = now()")
    settings = CommandSettings(database_url=env["DATABASE_URL"])
    assert await control.execute(parse(["--status", "--json"]), settings, asyncio.Event()) == 0
    rows_a_second = json.loads(capsys.readouterr().out)["rows_a_second"]
    assert rows_a_second == pytest.approx(10 / control.STATUS_LOOK_SECONDS)


async def test_a_run_keeps_to_a_rate_that_it_is_given_under_way(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    async with slow_run(env, sql) as process:
        unbounded = await backfill(env, "--set-rate", "0")
        assert await process.exit_code() == 0  # at its first rate it would go on beyond any patience
    assert unbounded.stdout == "Backfill 1 goes on at any speed, from its next chunk on.\n"
    assert [line["rate"] for line in process.logged("backfill_rate_changed")] == [None]
    assert process.logged("backfill_finished")[0]["processed"] == ROWS


async def test_a_paused_run_is_given_a_rate_for_later(env: dict[str, str], engine: AsyncEngine) -> None:
    await started(engine)
    assert (await backfill(env, "--pause")).code == 0
    done = await backfill(env, "--set-rate", "1500")
    assert done.stdout == "Backfill 1 goes on at 1,500 rows a second at most, once it is resumed.\n"
    assert (await backfill(env, "--set-rate", "none", "--json")).json["rate"] is None
    assert (await backfill(env, "--cancel")).code == 0
    assert "There is no unfinished backfill" in (await backfill(env, "--set-rate", "5")).stderr


async def test_the_newest_runs_are_listed(
    env: dict[str, str], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    assert (await backfill(env, "--list")).stdout == "No backfill has run yet.\n"
    await insert_many(sql, "c", 3)
    for _ in range(MOST_RUNS + 1):
        await backfilled(engine)
    await started(engine, BackfillOptions(project_id="p2"))
    listed, as_json = await asyncio.gather(backfill(env, "--list"), backfill(env, "--list", "--json"))
    heading, newest, second, *_ = listed.stdout.splitlines()
    assert " ".join(heading.split()) == "run state started (UTC) took done rows enqueued scope run by"
    assert newest.split()[:2] == [str(MOST_RUNS + 2), "running"]
    assert "0 %" in newest
    assert newest.endswith("project p2    a command; none has taken it yet")
    assert second.split()[:2] == [str(MOST_RUNS + 1), "finished"]
    assert "100 %  3     0         all projects" in second
    assert len(as_json.json["runs"]) == len(listed.stdout.splitlines()) - 1 == MOST_RUNS


async def test_a_run_is_followed_from_another_terminal_until_it_ends(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    assert (await backfill(env, "--follow")).stdout == "No backfill has run yet.\n"
    async with slow_run(env, sql) as process:
        drawn: list[str] = []
        following = asyncio.create_task(drawing(env, drawn, "--follow"))
        async with asyncio.timeout(HANG_SECONDS):
            while f"slowed by its rate of {RATE} rows/s" not in "".join(drawn):
                await asyncio.sleep(0.02)
        await backfill(env, "--set-rate", "none")
        assert await following == 0
        assert await process.exit_code() == 0
    shown = "".join(drawn)
    assert f"/{ROWS:,} rows" in shown
    assert f"Backfill 1: {ROWS:,} of {ROWS:,} rows looked at" in shown
    again = await backfill(env, "--follow")
    assert (again.code, again.stdout.startswith("Backfill 1: ")) == (0, True)


async def drawing(env: dict[str, str], drawn: list[str], *words: str) -> int:
    """Run the command at a terminal, collect what it draws, and return its exit status."""
    screen, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *BACKFILL,
        *words,
        cwd=ROOT,
        env={**env, "TERM": "xterm", "COLUMNS": "120"},
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    await asyncio.to_thread(read_all, screen, drawn)
    return await process.wait()


async def test_who_follows_a_run_that_stops_is_told_how_to_go_on(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    async with slow_run(env, sql) as process:
        with running([*BACKFILL, "--follow", "--json"], env) as following:
            await backfill(env, "--pause")
            assert await following.exit_code() == 1
        assert '"status": "paused"' in following.output
        assert await process.exit_code() == 1
    followed = await backfill(env, "--follow")
    assert followed.code == 1
    assert followed.stdout.splitlines()[-1].startswith("Backfill 1 is paused. Go on with")


async def test_a_dry_run_s_bar_says_what_would_be(env: dict[str, str], sql: asyncpg.Connection) -> None:
    await insert_many(sql, "c", 9)
    drawn: list[str] = []
    assert await drawing(env, drawn, "--dry-run") == 0
    assert "9/9 rows  9 would be enqueued" in "".join(drawn)


async def test_without_a_run_there_is_nothing_to_change(env: dict[str, str]) -> None:
    for done in await asyncio.gather(*(backfill(env, word) for word in ("--pause", "--resume", "--cancel"))):
        assert (done.code, done.stdout) == (1, "")
        assert "There is no unfinished backfill: none has run yet." in done.stderr


async def test_waiting_ends_with_the_proof(
    env: dict[str, str], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 20)
    async with draining(engine):
        done = await backfill(env, "--wait", "--json")
    assert (done.code, done.json["audit"]["verdict"], done.json["enqueued"]) == (0, "in_sync", 20)
    assert await drift(sql) == []


async def test_waiting_ends_with_status_1_when_drift_is_left(
    env: dict[str, str], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 3)
    await sql.execute(REFUSE_ONE)
    async with draining(engine):
        done = await backfill(env, "--wait")
    assert done.code == 1
    assert "\nDrift: 1 missing, 0 mismatched, 0 orphaned." in done.stdout
    assert await drift(sql) == ["c-0000002"]


async def test_waiting_can_be_interrupted(env: dict[str, str], sql: asyncpg.Connection) -> None:
    await insert_many(sql, "c", 3)
    with running([*BACKFILL, "--wait"], env) as process:
        await process.wait_for("backfill_finished")
        process.signal(signal.SIGINT)
        assert await process.exit_code() == 1
    assert "All is enqueued." in process.output


async def test_a_person_at_a_terminal_sees_a_bar_and_why_it_waits(
    env: dict[str, str], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 40)
    screen, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *[*BACKFILL, "--max-pending", "10"],
        cwd=ROOT,
        env={**env, "TERM": "xterm", "COLUMNS": "80"},
        stdout=asyncio.subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    drawn: list[str] = []
    reading = threading.Thread(target=read_all, args=(screen, drawn))
    reading.start()
    async with asyncio.timeout(HANG_SECONDS):
        while WAITS not in "".join(drawn):
            await asyncio.sleep(0.02)
        async with draining(engine):
            stdout, _ = await process.communicate()
    reading.join()
    shown = "".join(drawn)
    assert (process.returncode, (await current(engine)).enqueued) == (0, 40)
    assert stdout.startswith(b"Backfill 1: 40 of 40 rows looked at")
    for words in ("10/40 rows", "40/40 rows  40 enqueued", "rows/s", "left", "100 %"):
        assert words in shown
    assert '"event"' not in shown


def read_all(screen: int, drawn: list[str]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(screen, 65536):
            drawn.append(decoder.decode(part))
    os.close(screen)


@pytest.mark.parametrize(
    "words",
    [
        "--dry-run --resume",
        "--status --pause",
        "--set-rate 0 --pause",
        "--set-rate 5 --rate 5",
        "--set-rate fast",
        "--follow --wait",
        "--list --in-worker",
        "--resume --rate 5",
        "--status --max-pending 5",
        "--cancel --project p1",
        "--wait --in-worker",
        "--dry-run --wait",
        "--pause --in-worker",
        "--rate 0",
        "--rate fast",
        "--max-pending -1",
        "--max-pending 99999999999",
        "--project",
        "extra",
        "--unknown",
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(words.split())
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


async def test_wrong_usage_and_an_incomplete_environment_end_with_status_2(env: dict[str, str]) -> None:
    unusable = {name: value for name, value in env.items() if name != "DATABASE_URL"}
    wrong, incomplete = await asyncio.gather(backfill(env, "--resume", "--dry-run"), backfill(unusable))
    assert (wrong.code, incomplete.code) == (2, 2)
    assert "not allowed with argument" in wrong.stderr
    assert "DATABASE_URL" in incomplete.stderr


async def test_a_run_whose_driver_is_gone_is_described(
    env: dict[str, str], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await started(engine)
    await sql.execute(
        "UPDATE backfill_runs SET driver = 'elsewhere:1', driver_token = gen_random_uuid(),"
        " heartbeat_at = heartbeat_at - interval '100 seconds'"
    )
    refused, shown = await asyncio.gather(backfill(env), backfill(env, "--status"))
    assert refused.code == 1
    assert "what ran it, a command, elsewhere:1, has been silent for 1" in refused.stderr
    assert "its driver has been silent for 1" in shown.stdout
