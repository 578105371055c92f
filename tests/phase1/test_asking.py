"""A rollback at a terminal asks before it removes anything; --yes and --dry-run do not."""

import asyncio
import os
import pty
import sys

import asyncpg
import pytest

from tests.forked import ROOT
from tests.phase1.script import BEFORE_PHASE_1, SCRIPT, call
from tests.processes import HANG_SECONDS, running_worker
from tests.rollback.situations import ours


async def at_a_terminal(env: dict[str, str], answer: str, *options: str) -> tuple[int, str]:
    """Run the rollback at a terminal and type the answer to its question, if it has one."""
    screen, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, SCRIPT, "--rollback", *options, cwd=ROOT, env=env | {"TERM": "dumb"},
        stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    shown = ""
    async with asyncio.timeout(HANG_SECONDS):
        while part := await asyncio.to_thread(read, screen):
            shown += part
            if shown.endswith("[y/N] "):
                os.write(screen, answer.encode())
        code = await process.wait()
    os.close(screen)
    return code, shown


def read(screen: int) -> str:
    try:
        return os.read(screen, 65_536).decode()
    except OSError:  # so Linux says that the other end is closed
        return ""


@pytest.fixture
async def filled(env: dict[str, str], sql: asyncpg.Connection) -> asyncpg.Connection:
    await sql.execute(BEFORE_PHASE_1)
    async with running_worker(env):
        assert (await call(env)).returncode == 0
    return sql


async def test_a_rollback_at_a_terminal_shows_what_goes_and_asks(
    env: dict[str, str], filled: asyncpg.Connection
) -> None:
    before = await ours(filled)
    code, shown = await at_a_terminal(env, "n\n")
    assert code == 1
    assert "Dry run: 28 rows would be removed" in shown
    assert "Take phase 1 back? [y/N]" in shown
    assert "Nothing was changed." in shown
    assert await ours(filled) == before

    code, shown = await at_a_terminal(env, "", "--dry-run")
    assert (code, "[y/N]" in shown) == (0, False)
    assert await ours(filled) == before

    code, shown = await at_a_terminal(env, "y\n")
    assert code == 0
    assert "Rolled back: 28 rows that this system had made are gone" in shown
    assert await ours(filled) != before


async def test_where_nobody_can_be_asked_nothing_is_removed(
    env: dict[str, str], filled: asyncpg.Connection
) -> None:
    before = await ours(filled)
    done = await call(env, "--rollback")
    assert done.returncode == 0
    assert "Nothing was changed; --rollback --yes does it." in done.stdout
    assert await ours(filled) == before


async def test_beside_a_worker_it_does_not_ask(env: dict[str, str], filled: asyncpg.Connection) -> None:
    before = await ours(filled)
    async with running_worker(env):
        code, shown = await at_a_terminal(env, "y\n")
    assert (code, "[y/N]" in shown) == (0, False)
    assert "Stop the workers before --yes." in shown
    assert await ours(filled) == before


async def test_while_reads_are_moved_it_does_not_ask_and_says_how_to_go_back(
    env: dict[str, str], filled: asyncpg.Connection
) -> None:
    before = await ours(filled)
    await filled.execute("UPDATE migration_phase SET phase = 'reads_moved'")
    code, shown = await at_a_terminal(env, "")
    assert (code, "[y/N]" in shown) == (0, False)
    assert "python -m worker.phase back" in shown
    refused = await call(env, "--rollback", "--yes")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Reads are moved" in refused.stderr
    assert await ours(filled) == before
    await filled.execute("UPDATE migration_phase SET phase = 'shadow_reads'")
    assert "The phase would go back to Outbox." in (await call(env, "--rollback")).stdout
    assert "The phase went back to Outbox." in (await call(env, "--rollback", "--yes")).stdout
