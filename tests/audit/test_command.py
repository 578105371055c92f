"""`python -m worker.audit` as an operator runs it: real processes, their exit status, stdout and stderr."""

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest

from deploy.local.children import tied_to_us
from shared.audit_runs import AuditRun
from shared.settings import Settings
from tests.audit.pairs import AUDIT, UPDATED, put_legacy, put_pair, put_synced, put_target
from tests.backfill.driving import until_waiting
from tests.databases import Databases
from tests.forked import ROOT, run
from tests.log_lines import hold_printed
from tests.processes import HANG_SECONDS, Running, environment, running, running_worker
from worker.audit.watch_lines import WatchLines

KEYS = [
    "run_id", "verdict", "compared", "planned", "missing", "mismatched", "orphaned", "pending", "repaired",
    "active_collections", "home_rows", "canary_found", "status", "error", "duration_seconds", "findings",
]  # fmt: skip


@dataclass
class Ended:
    """A process that ended: its status, what it printed, and its log lines."""

    code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        [line] = self.stdout.splitlines()
        result: dict[str, Any] = json.loads(line)
        return result

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.stderr.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]


@pytest.fixture
def env(settings: Settings) -> dict[str, str]:
    return environment(settings.database_url.get_secret_value(), settings.redis_url.get_secret_value())


async def run_audit(env: dict[str, str], *arguments: str) -> Ended:
    """Run the command to its end."""
    done = await asyncio.to_thread(run, ["-m", "worker.audit", *arguments], env, timeout=HANG_SECONDS)
    hold_printed(done.stderr)
    return Ended(done.returncode, done.stdout, done.stderr)


async def test_tables_in_sync_exit_with_success_and_say_so(
    env: dict[str, str], seeded: asyncpg.Connection
) -> None:
    await put_synced(seeded, 30)

    began_at = await seeded.fetchval("SELECT clock_timestamp()")
    machine = await run_audit(env, "--json")
    passed = await seeded.fetchval("SELECT clock_timestamp() - $1::timestamptz", began_at)
    assert machine.code == 0, machine.stderr
    assert list(machine.result) == KEYS
    expected = {"verdict": "in_sync", "compared": 30, "planned": 30, "missing": 0, "mismatched": 0}
    expected |= {"orphaned": 0, "pending": 0, "active_collections": 27, "home_rows": 27, "canary_found": True}
    assert machine.result | expected == machine.result
    assert 0 < machine.result["duration_seconds"] <= passed.total_seconds() + 0.001  # it is rounded
    [started], [finished] = machine.logged("audit_started"), machine.logged("audit_finished")
    assert (started["process"], started["chunks_planned"]) == ("audit", 1)
    assert finished["run_id"] == machine.result["run_id"]
    assert (finished["level"], finished["verdict"], finished["compared"]) == ("info", "in_sync", 30)
    assert len(machine.logged("audit_progress")) == 1

    human = await run_audit(env, "--project", "p1")
    assert human.code == 0
    first, *table = human.stdout.splitlines()
    assert first == "In sync: all 10 pairs agree."
    assert any("home rows" in line for line in table)


async def test_drift_fails_and_every_finding_has_a_bounded_line(
    env: dict[str, str], seeded: asyncpg.Connection
) -> None:
    await put_legacy(seeded, "long", description="x" * 1000)
    await put_pair(seeded, "other", research_context=None)

    ended = await run_audit(env, "--json")

    assert ended.code == 1
    assert (ended.result["verdict"], ended.result["missing"], ended.result["mismatched"]) == ("drift", 1, 1)
    by_key = {line["collection_id"]: line for line in ended.logged("audit_finding")}
    assert by_key["long"]["legacy"]["research_context"] == "x" * 200
    assert (by_key["long"]["kind"], by_key["long"]["target"]) == ("missing", None)
    assert by_key["other"]["differs"] == ["research_context"]
    assert by_key["other"]["legacy"]["research_context"] == "text"
    assert by_key["other"]["target"]["research_context"] is None
    [finished] = ended.logged("audit_finished")
    assert (finished["level"], finished["unlisted"]) == ("error", 0)


async def test_more_findings_than_are_listed_are_counted(
    env: dict[str, str], seeded: asyncpg.Connection
) -> None:
    await put_synced(seeded, 1_200)
    await seeded.execute("DELETE FROM project_collections")

    ended = await run_audit(env, "--json")

    assert (ended.code, ended.result["missing"]) == (1, 1_080)
    assert len(ended.logged("audit_finding")) == 1_000
    assert ended.logged("audit_finished")[0]["unlisted"] == 80


async def test_pending_alone_is_a_success(env: dict[str, str], seeded: asyncpg.Connection) -> None:
    await put_legacy(seeded, "a")
    await seeded.execute(
        "INSERT INTO outbox_events (aggregate_id, event_type, source, payload)"
        " VALUES ('a', 'collection.created', 'api', '{}')"
    )

    ended = await run_audit(env)

    assert (ended.code, ended.stderr.count("audit_finding")) == (0, 0)
    assert ended.stdout.startswith("No drift: 1 of 1 pairs differ")


async def test_a_worker_mends_what_the_command_found(env: dict[str, str], seeded: asyncpg.Connection) -> None:
    await put_legacy(seeded, "a")
    async with running_worker(env):
        first = await run_audit(env, "--repair", "--json")
        second = await run_audit(env, "--repair", "--json")

    assert (first.code, first.result["verdict"], first.result["repaired"]) == (0, "repaired", 1), first.stderr
    assert first.result["missing"] == 1
    assert first.logged("audit_repair_appended")[0]["appended"] == 1
    assert first.logged("audit_repair_verified")[0]["repaired"] == 1
    assert (second.code, second.result["verdict"], second.result["missing"]) == (0, "in_sync", 0)


def results_of(process: Running) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.lines.copy() if line.startswith('{"run_id"')]


async def passes(process: Running, count: int) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while len(results_of(process)) < count:
            assert process.process.poll() is None, process.output
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("broken", "code"), [(False, 0), (True, 1)], ids=["in sync", "drift"])
async def test_watching_goes_on_until_interrupted_and_ends_with_the_last_passs_status(
    broken: bool,  # noqa: FBT001 - a parameter of the test
    code: int,
    env: dict[str, str],
    seeded: asyncpg.Connection,
) -> None:
    await put_pair(seeded, "a")
    with running(["-m", "worker.audit", "--watch", "--interval", "0.05", "--json"], env) as process:
        await passes(process, 2)
        if broken:
            await seeded.execute("DELETE FROM project_collections")
        await passes(process, 6)
        process.signal(signal.SIGINT)
        assert await process.exit_code() == code

    results = results_of(process)
    assert len(results) >= 6
    assert [result["verdict"] for result in results[:2]] == ["in_sync", "in_sync"]
    assert results[-1]["verdict"] == ("drift" if broken else "in_sync")


async def test_an_interrupt_ends_a_pass_without_a_verdict(
    env: dict[str, str], seeded: asyncpg.Connection
) -> None:
    await put_pair(seeded, "a")
    async with seeded.transaction():
        await seeded.execute("LOCK TABLE project_collections")
        with running(["-m", "worker.audit", "--json"], env) as process:
            await until_waiting(seeded, AUDIT)
            process.signal(signal.SIGINT)  # which comes before any answer that it gets from now on
            await seeded.execute("ROLLBACK; BEGIN")
            assert await process.exit_code() == 1

    [result] = results_of(process)
    assert (result["status"], result["verdict"], result["error"]) == ("failed", "incomplete", "interrupted")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--interval", "5"], "--interval needs --watch"),
        (["--watch", "--interval", "-1"], "must be a number of seconds, 0 or more, not '-1'"),
        (["--watch", "--interval", "nan"], "must be a number of seconds"),
        (["--connections", "0"], "must be a whole number from 1 to 16, not '0'"),
        (["--connections", "two"], "must be a whole number from 1 to 16, not 'two'"),
        (["--findings", "-1"], "must be a whole number from 0 to 10000"),
        (["findings"], "the following arguments are required: RUN"),
        (["findings", "none"], "must be a whole number"),
        (["findings", "5", "--repair"], "unrecognized arguments"),
        (["--repare"], "unrecognized arguments"),
        (["everything"], "unrecognized arguments"),
    ],
)
async def test_wrong_usage_is_told_apart(arguments: list[str], complaint: str, env: dict[str, str]) -> None:
    ended = await run_audit(env, *arguments)

    assert (ended.code, ended.stdout) == (2, "")
    assert complaint in ended.stderr


async def test_what_is_missing_is_told_with_what_to_do(
    env: dict[str, str], seeded: asyncpg.Connection, databases: Databases
) -> None:
    without = await run_audit({name: value for name, value in env.items() if name != "DATABASE_URL"})
    assert (without.code, without.stdout) == (2, "")
    assert "DATABASE_URL: is not set" in without.stderr

    empty = await run_audit(env | {"DATABASE_URL": databases.create_empty("audit_never_migrated")})
    assert (empty.code, empty.stdout) == (1, "")
    assert "alembic upgrade head" in empty.stderr

    away = await run_audit(env | {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    assert (away.code, away.stdout) == (1, "")
    assert "PostgreSQL is away" in away.stderr

    mistyped = await run_audit(env, "--project", "p9")
    assert (mistyped.code, mistyped.stdout) == (1, "")
    assert "There is no project 'p9'." in mistyped.stderr
    assert await seeded.fetchval("SELECT count(*) FROM audit_runs") == 0


async def test_redis_is_not_needed(env: dict[str, str], seeded: asyncpg.Connection) -> None:
    await put_pair(seeded, "a")
    del env["REDIS_URL"]

    assert (await run_audit(env)).code == 0


BACKFILLED = """
    INSERT INTO backfill_runs (status, in_worker, max_pending, chunk_size, planned, finished_at)
    VALUES ('finished', false, 1, 1, 0, clock_timestamp())
"""
OLD = """
old-7  mismatched  research_context
- 'tampered'
+ 'text'
"""


async def test_a_pipe_gets_each_finding_like_a_diff(env: dict[str, str], seeded: asyncpg.Connection) -> None:
    long = "a" * 300
    await put_legacy(seeded, "gone")
    await put_legacy(seeded, "long", description=f"{long}legacy")
    await put_target(seeded, "long", research_context=f"{long}target")
    await put_pair(seeded, "many", research_context=None, created_at=UPDATED)
    await put_pair(seeded, "old-7", research_context="tampered")
    await put_legacy(seeded, "stray" * 10, is_active=False)
    await put_target(seeded, "stray" * 10)

    ended = await run_audit(env)

    assert ended.code == 1
    assert OLD in ended.stdout
    assert f"\n{'stray' * 10}  orphaned  a row in p1\n- 'text'\n" in ended.stdout
    assert "\ngone  missing  no row in p1\n+ 'text'\n" in ended.stdout
    assert f"\n- …'{'a' * 20}target'\n+ …'{'a' * 20}legacy'\n" in ended.stdout
    assert "\nmany  mismatched  research_context, created_at\n- research_context: NULL\n" in ended.stdout
    assert "\x1b" not in ended.stdout


async def test_findings_are_bounded_and_the_others_are_a_command_away(
    env: dict[str, str], seeded: asyncpg.Connection
) -> None:
    for number in range(1, 6):
        await put_pair(seeded, f"key-{number}", research_context="x" * 5_000)

    first = await run_audit(env, "--findings", "2")
    assert "key-2  mismatched" in first.stdout
    assert "key-3  mismatched" not in first.stdout
    assert "\n\nThe next: python -m worker.audit findings 1 --after key-2\n" in first.stdout

    second = await run_audit(env, "findings", "1", "--after", "key-2", "--json")
    assert [found["collection_id"] for found in second.result["findings"]] == ["key-3", "key-4", "key-5"]
    assert (second.code, second.result["verdict"], second.result["found"]) == (0, "drift", 5)
    found = second.result["findings"][0]
    assert (found["kind"], found["differs"], found["project_id"]) == (
        "mismatched",
        ["research_context"],
        "p1",
    )
    assert found["legacy"]["research_context"] == "text"
    assert found["target"]["research_context"] == "x" * 199 + "…"
    assert isinstance(found["target"]["created_at"], str)

    third = await run_audit(env, "findings", "1", "--after", "key-5")
    assert (third.code, third.stdout.splitlines()[-1]) == (0, "No further finding.")
    unknown = await run_audit(env, "findings", "99")
    assert (unknown.code, unknown.stdout) == (1, "")
    assert "There is no audit 99." in unknown.stderr

    as_json = await run_audit(env, "--json", "--findings", "3")
    assert [found["collection_id"] for found in as_json.result["findings"]] == ["key-1", "key-2", "key-3"]


async def test_what_to_type_next_is_what_the_status_says(
    env: dict[str, str], seeded: asyncpg.Connection
) -> None:
    await put_legacy(seeded, "a")
    before = await run_audit(env)
    assert before.stdout.endswith("\nNext:\n  python -m worker\n  python -m worker.backfill --wait\n")
    await seeded.execute(BACKFILLED)
    async with running_worker(env):
        async with asyncio.timeout(HANG_SECONDS):
            while not await seeded.fetchval("SELECT count(*) FROM worker_processes"):
                await asyncio.sleep(0.01)
        drift = await run_audit(env)
        assert "\n\nNext:\n  python -m worker.audit --repair\n" in drift.stdout
        assert "\n\nNext:\n  python -m worker." in (await run_audit(env, "--repair")).stdout
        assert "Next:" not in (await run_audit(env)).stdout


async def test_what_was_repaired_is_listed_with_what_became_of_it(
    env: dict[str, str], seeded: asyncpg.Connection
) -> None:
    await put_pair(seeded, "a", research_context="before")
    async with running_worker(env):
        ended = await run_audit(env, "--repair")
    assert "\na  mismatched, repaired  research_context\n- 'before'\n+ 'text'\n" in ended.stdout


async def test_each_pass_of_a_watch_is_a_line_and_a_change_names_the_first_ids(
    env: dict[str, str], seeded: asyncpg.Connection
) -> None:
    await put_pair(seeded, "a")
    with running(["-m", "worker.audit", "--watch", "--interval", "0.05"], env) as process:
        in_sync = await line_of(process, "  in sync     1 pair  0 pending  ")
        await seeded.execute("DELETE FROM project_collections")
        first = await line_of(process, "  drift       1 pair  1 differs  0 pending  ")
        again = await line_of(process, "  drift       1 pair  1 differs  0 pending  ")
        process.signal(signal.SIGINT)
        assert await process.exit_code() == 1
    at, since = in_sync[:8], re.search(r"since (\S+)", in_sync)
    assert since is not None
    assert re.fullmatch(r"\d\d:\d\d:\d\d", at)
    assert since[1] == at
    assert first.endswith(f"since {first[:8]}  a")
    assert again.endswith(f"since {first[:8]}")


async def line_of(process: Running, words: str) -> str:
    """Take the next line that holds the words out of what was printed."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            for line in process.lines.copy():
                process.lines.remove(line)
                if words in line and not line.startswith("{"):
                    return line.rstrip()
            assert process.process.poll() is None, process.output
            await asyncio.sleep(0.02)


def test_since_never_reaches_across_a_gap() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def run(second: int, verdict: str, error: str | None = None) -> AuditRun:
        return cast(
            "AuditRun",
            SimpleNamespace(
                verdict=verdict, status="finished", finished_at=noon + timedelta(seconds=second),
                compared=5, found=0, pending=0, duration_seconds=0.4, error=error,
            ),
        )  # fmt: skip

    lines = WatchLines()
    began = f"{noon.astimezone():%H:%M:%S}"
    assert lines.line(run(0, "in_sync"), []).endswith(f"0.4 s  since {began}")
    assert lines.line(run(5, "in_sync"), []).endswith(f"since {began}")
    lines.forget()
    assert not lines.line(run(9, "in_sync"), []).endswith(f"since {began}")
    assert lines.line(run(9, "incomplete", "it is blind"), []).endswith("it is blind")


@pytest.mark.parametrize("no_color", ["", "1"])
async def test_a_terminal_shows_the_verdict_in_its_colour_unless_colours_are_not_wanted(
    no_color: str, env: dict[str, str], seeded: asyncpg.Connection
) -> None:
    for number in range(25):
        await put_pair(seeded, f"{'key' * 40}-{number}", research_context=f"[red]before {number}")

    shown = await asyncio.to_thread(in_a_terminal, env | {"NO_COLOR": no_color})

    red = "" if no_color else ";31"
    sentence = "Drift: 0 missing, 25 mismatched, 0 orphaned."
    assert f"\x1b[1{red}m{sentence}" in shown
    assert f"\x1b[1m{'key' * 40}-0\x1b[0m" in shown, "an id is never wrapped"
    assert "- '[red]before 0'" in shown
    assert shown.count("\r\n") < 100
    assert '"event"' not in shown  # log lines are for files and pipes


def in_a_terminal(env: dict[str, str]) -> str:
    """Run the command with a terminal for its output and return what it drew."""
    ours, theirs = pty.openpty()
    command = tied_to_us([sys.executable, "-m", "worker.audit"], "KILL")
    narrow = env | {"TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(command, cwd=ROOT, env=narrow, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 65_536):
                shown += chunk
        except OSError:  # so Linux says that the other end is closed
            pass
        os.close(ours)
    assert process.returncode == 1
    return shown.decode()
