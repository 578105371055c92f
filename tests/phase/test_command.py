"""`python -m worker.phase` as an operator types it."""

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.phase.phases import ORDER
from tests.forked import ROOT, run
from tests.legacy_rows import seed
from tests.log_lines import hold_printed, log_lines
from tests.phase.meeting import COMPARE, COUNT_LOSSES, FIND, LONG_AGO, PHASE, meet_gates
from tests.processes import HANG_SECONDS, environment, running
from tests.security.conftest import urls as urls  # noqa: PLC0414 - a fixture of ours, too

COMMAND = ["-m", "worker.phase"]
ESCAPE = "\x1b]0;owned\x07[/b]"
TO = "UPDATE migration_phase SET phase = $1, epoch = $2"
HOLD = "SELECT FROM migration_phase FOR UPDATE"
MISMATCHES = """
    INSERT INTO shadow_counts (epoch, minute, mismatched, last_at)
    SELECT epoch, date_trunc('hour', clock_timestamp()), 2, clock_timestamp() FROM migration_phase
"""
FALL = """
    WITH turned AS (
        UPDATE migration_phase SET phase = 'shadow_reads', epoch = epoch + 1, actor = 'collection-sync api'
        RETURNING epoch
    )
    INSERT INTO phase_turns (epoch, from_phase, to_phase, kind, actor, reason, forced, gates)
    SELECT epoch, 'reads_moved', 'shadow_reads', 'fall_back', 'collection-sync api', 'c1 differs.', false,
        '[]'
    FROM turned
"""


@pytest.fixture(autouse=True)
async def _seeded(sql: asyncpg.Connection) -> None:
    await seed(sql)


@pytest.fixture
def env(database_url: str) -> dict[str, str]:
    """Without Redis."""
    env = environment(database_url, "")
    del env["REDIS_URL"]
    return env


async def typed(env: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    done = await asyncio.to_thread(run, [*COMMAND, *words], env, timeout=HANG_SECONDS)
    hold_printed(done.stderr)
    assert not {"\x1b", "\x07"} & {*done.stdout, *done.stderr}
    return done


async def read(env: Mapping[str, str], *words: str) -> tuple[int, dict[str, Any]]:
    """Return the exit status, and the one line on stdout."""
    done = await typed(env, *words, "--json")
    (line,) = done.stdout.splitlines()
    return done.returncode, json.loads(line)


async def test_before_anything_was_done_status_says_what_is_missing_and_what_to_type(
    env: dict[str, str],
) -> None:
    done = await typed(env, "status")
    assert done.returncode == 1
    head, reads, _, title, *table = done.stdout.splitlines()
    assert re.fullmatch(r"0\. Legacy only, since \d\d:\d\d, by alembic upgrade head\.", head)
    assert (reads, title) == ("Lists are read from collections.", "To 1. Outbox:")
    assert table[1].split("  ")[0] == "met"  # the schema
    assert re.match(r"not met  A worker runs +0 alive +at least 1$", table[2])
    assert "\nNext:\n  python -m worker\n  python -m worker.capture install" in done.stdout
    assert "not counted yet" in done.stdout
    assert "Compared" not in done.stdout
    assert (await read(env, "status"))[1]["number"] == 0


async def test_it_advances_gate_by_gate_to_moved_reads_and_goes_back(
    env: dict[str, str], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await meet_gates(engine, sql)
    await sql.execute(COUNT_LOSSES)
    for number, phase in enumerate(ORDER[1:]):
        if phase == "shadow_reads":
            await sql.execute(LONG_AGO)
        if phase == "reads_moved":
            assert (await typed(env, "status")).returncode == 1
            await sql.execute(COMPARE)
        code, before = await read(env, "status")
        assert (code, before["is_open"], before["following"]) == (0, True, phase)
        assert before["next_steps"] == ["python -m worker.phase advance"]
        code, after = await read(env, "advance", "--actor", "ann")
        assert (code, after["phase"], after["epoch"], after["actor"]) == (0, phase, number + 1, "ann")
        assert [gate["name"] for gate in after["turned"]["gates"]] == [one["name"] for one in before["gates"]]
        assert all(gate["is_met"] for gate in after["turned"]["gates"])
    assert (after["next_steps"], after["falls_back"], after["losses"]["further_links"]) == ([], True, 12)
    done = await typed(env, "status")
    assert done.returncode == 0
    assert "4. Reads moved, since" in done.stdout
    assert "Lists are read from project_collections. They fall back by themselves" in done.stdout
    assert "Nothing is left to do" in done.stdout

    done = await typed(env, "back", "--reason", f"slow {ESCAPE}")
    assert done.returncode == 0
    assert done.stdout.startswith("Turned back to 3. Shadow reads. Lists are read from collections.\n")
    assert "hides from reads: 12 further links, 3 rows with tags, 0 rows with mappings, 1 context of" in (
        done.stdout
    )
    assert tuple(await sql.fetchrow(PHASE)) == ("shadow_reads", 5)
    (line,) = log_lines(done.stderr.splitlines(keepends=True))
    assert line["event"] == "phase_turned"
    assert (line["from_phase"], line["kind"], line["epoch"]) == ("reads_moved", "back", 5)
    shown = await read(env, "status")
    assert [turn["kind"] for turn in shown[1]["turns"]] == ["back", *["advance"] * 4]
    assert shown[1]["turns"][0]["losses"]["tags"] == 3
    assert "owned" in (await typed(env, "status")).stdout


async def test_it_refuses_with_reasons_and_the_way_on(env: dict[str, str], sql: asyncpg.Connection) -> None:
    done = await typed(env, "advance")
    assert done.returncode == 1
    assert "Not turned to Outbox. A worker runs: 0 alive (must be: at least 1); Nobody writes" in done.stderr
    assert "Next:\n  python -m worker\n" in done.stdout
    code, answer = await read(env, "advance")
    assert (code, answer["phase"], answer["turned"]) == (1, "legacy_only", None)
    assert answer["refused"].startswith("Not turned to Outbox.")
    assert [gate["name"] for gate in answer["gates"] if not gate["is_met"]] == ["workers", "writers"]
    assert answer["next_steps"][0] == "python -m worker"
    code, answer = await read(env, "back")
    assert (code, answer["refused"]) == (1, "Legacy only is the first phase.")
    assert await sql.fetchval("SELECT count(*) FROM phase_turns") == 0


async def test_forcing_is_recorded_with_its_reason_and_who_did_it(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    done = await typed(env, "advance", "--force", "--reason", "a rehearsal")
    assert done.returncode == 0
    assert "Forced past: A worker runs; Nobody writes past the outbox." in done.stdout
    row = await sql.fetchrow("SELECT * FROM phase_turns")
    assert (row["reason"], row["forced"], row["to_phase"]) == ("a rehearsal", True, "outbox")
    assert re.fullmatch(r".+@.+", row["actor"])
    assert (
        ", forced past: A worker runs, Nobody writes past the outbox: a rehearsal"
        in (await typed(env, "status")).stdout
    )


@pytest.mark.parametrize(
    "words",
    [
        ["advance", "--force"],
        ["advance", "--force", "--reason", " "],
        ["back", "--force", "--reason", "x"],
        ["back", "--actor", "x" * 201],
        ["advance", "--reason", "x" * 2_001],
        ["report"],
        ["status", "--yes"],
        [],
    ],
    ids=lambda words: " ".join(words)[:30] or "nothing",
)
async def test_wrong_usage_ends_with_2(env: dict[str, str], words: list[str]) -> None:
    assert (await typed(env, *words)).returncode == 2


async def test_reads_fall_back_unless_they_were_moved_without(
    env: dict[str, str], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await meet_gates(engine, sql)
    for words, falls in ((["--no-fall-back"], False), ([], True)):
        await sql.execute(TO, "shadow_reads", 3)
        await sql.execute("DELETE FROM phase_turns")
        await sql.execute("DELETE FROM shadow_counts")
        await sql.execute(COMPARE)
        code, answer = await read(env, "advance", *words)
        assert (code, answer["phase"], answer["falls_back"]) == (0, "reads_moved", falls)
    said = (await typed(env, "status")).stdout
    assert "They fall back by themselves when a comparison finds a mismatch." in said


async def test_mismatches_are_named_and_the_way_on_is_to_repair_and_begin_anew(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    await sql.execute(TO, "shadow_reads", 3)
    await sql.execute(COMPARE)
    await sql.execute(MISMATCHES)
    await sql.execute(FIND, "p1", f"c1 {ESCAPE}")
    done = await typed(env, "status")
    assert done.returncode == 1
    assert "1,002 lists, 2 mismatches" in done.stdout
    assert "A list took 0.50 ms from collections, 0.75 ms from project_collections." in done.stdout
    assert "mismatched: collection c1 " in done.stdout
    assert {"python -m worker.audit --repair", "python -m worker.phase back"} <= {
        line.strip() for line in done.stdout.splitlines()
    }
    (found,) = (await read(env, "status"))[1]["shadow"]["findings"]
    assert (found["project_id"], found["kind"]) == ("p1", "mismatched")


async def test_reads_that_fell_back_say_so_with_what_was_found_before(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    await sql.execute(TO, "reads_moved", 4)
    await sql.execute(FIND, "p1", "c1")
    await sql.execute(FALL)
    done = await typed(env, "status")
    assert done.returncode == 1
    assert "They fell back: c1 differs." in done.stdout
    assert "mismatched: collection c1 of project p1" in done.stdout
    assert "fell back to Shadow reads, by collection-sync api: c1 differs." in done.stdout


async def test_in_the_last_phase_mismatches_are_a_failure(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    await sql.execute(TO, "reads_moved", 4)
    assert (await read(env, "status"))[0] == 0
    await sql.execute(MISMATCHES)
    code, answer = await read(env, "status")
    assert (code, answer["next_steps"][-1]) == (1, "python -m worker.phase back")


async def test_while_somebody_holds_the_row_it_tries_again_and_an_interrupt_ends_it(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    force = [*COMMAND, "advance", "--force", "--reason", "x"]
    async with sql.transaction():
        await sql.execute(HOLD)
        with running(force, env) as turning:
            await until_tried_again(turning.lines)
            turning.signal(signal.SIGINT)
            assert await turning.exit_code() == 1
            assert turning.lines[-1] == "Nothing was turned.\n"
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute(HOLD)
    with running(force, env) as turning:
        await until_tried_again(turning.lines)
        await transaction.commit()
        assert await turning.exit_code() == 0
    assert tuple(await sql.fetchrow(PHASE)) == ("outbox", 1)


async def until_tried_again(lines: Sequence[str]) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while not any("Attempt 2 follows" in line for line in lines):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("answer", "status", "phase"), [("y", 0, "shadow_reads"), ("n", 1, "reads_moved")])
async def test_a_person_at_a_terminal_is_asked_before_reads_move_and_told_what_that_costs(
    env: dict[str, str], sql: asyncpg.Connection, answer: str, status: int, phase: str
) -> None:
    await sql.execute(TO, "reads_moved", 4)
    await sql.execute(COUNT_LOSSES)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r+b", 0) as terminal:
        process = subprocess.Popen(  # noqa: ASYNC220 - it starts in a moment
            [sys.executable, *COMMAND, "back"],
            cwd=ROOT,
            env={**env, "TERM": "dumb"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
    written = ""
    while "[y/N]" not in written:
        written += (await asyncio.to_thread(os.read, ours, 65_536)).decode()
    assert "12 further links" in written
    os.write(ours, f"{answer}\n".encode())
    assert await asyncio.to_thread(process.wait, HANG_SECONDS) == status
    os.close(ours)
    assert await sql.fetchval("SELECT phase FROM migration_phase") == phase


async def test_without_its_row_or_its_schema_it_says_what_to_do(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    await sql.execute("DELETE FROM migration_phase")
    for words in (["status"], ["advance"], ["back"]):
        done = await typed(env, *words)
        assert done.returncode == 1
        assert "Put it back: see docs/phases.md" in done.stderr
    await sql.execute("UPDATE collection_sync_version SET version_num = '0010'")
    done = await typed(env, "status")
    assert (done.returncode, "alembic upgrade head" in done.stderr) == (1, True)


async def test_an_operator_s_role_turns_it_and_a_reader_s_sees_all_and_turns_nothing(
    urls: dict[str, str], env: dict[str, str], tmp_path: Path
) -> None:
    operator, reader = ({**env, "DATABASE_URL": urls[role]} for role in ("operator", "reader"))
    assert (await typed(operator, "advance", "--force", "--reason", "a rehearsal")).returncode == 0
    for who in (operator, reader):
        _, seen = await read(who, "status")
        assert (seen["phase"], seen["unknown"], len(seen["turns"])) == ("outbox", {}, 1)
        assert (await typed(who, "report", "--html", str(tmp_path / "page"))).returncode == 0
    refused = await typed(reader, "back")
    assert (refused.returncode, "deploy/roles.sql" in refused.stderr) == (1, True)
    assert (await read(operator, "back"))[1]["phase"] == "legacy_only"
