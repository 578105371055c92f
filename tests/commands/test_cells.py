"""No command ends in a traceback, or by a wrong status, for what a user did or a server has."""

import asyncio
import contextlib
import itertools
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.valkey import Valkey
from tests.commands.cells import (
    ALEMBIC,
    COMMANDS,
    CONDITIONS,
    NOT_OF_ALEMBIC,
    ODD,
    Condition,
    Ended,
    ended,
    faults,
    name_of,
)
from tests.commands.test_imports import SCRIPTS
from tests.commands.world import World, world
from tests.databases import Databases
from tests.processes import HANG_SECONDS, environment, running

PLAIN = Condition()
# Each command meets one condition, and each condition one command or two.
PAIRS = [(words, name) for words, name in zip(COMMANDS, itertools.cycle(CONDITIONS), strict=False)]


@pytest.fixture(scope="module")
def here(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(databases, tmp_path_factory.mktemp("world")) as here:
        yield here


@pytest.fixture(scope="module")
def plain(here: World, valkey: Valkey) -> dict[str, Ended]:
    """What each command does where all is well but for the texts."""
    return {name_of(words): ended(here, valkey.url, words, PLAIN) for words in COMMANDS}


def test_every_command_is_in_the_table() -> None:
    modules = {words[1].replace(".", "/") for words in COMMANDS if words[0] == "-m"}
    typed = {f"{module}/__main__.py" for module in modules} | ({words[0] for words in COMMANDS} - {"-m"})
    ours = {path.as_posix() for path in SCRIPTS if path.parts[0] in {"worker", "migrations"}}
    assert typed == ours
    assert {name for _, name in PAIRS} == {*CONDITIONS}


def test_no_text_of_others_steers_a_terminal_or_is_taken_for_ours(plain: dict[str, Ended]) -> None:
    wrong = {
        name: found
        for words in COMMANDS
        if (found := faults(words, PLAIN, plain[name := name_of(words)], plain[name]))
    }
    assert wrong == {}
    assert {name: cell.status for name, cell in plain.items() if cell.status == 2} == dict.fromkeys(
        [
            "worker.dead_letters list --collection HOSTILE HOSTILE",
            "worker.dashboard HOSTILE",
            "worker.phase advance --force",
        ],
        2,
    )
    assert "日本[/b][bold]" in plain["worker.dead_letters show 424242"].stdout
    assert "日本[/b]" in plain["worker.dead_letters list"].stdout


def test_every_command_meets_a_condition(here: World, valkey: Valkey, plain: dict[str, Ended]) -> None:
    wrong = {}
    for words, name in PAIRS:
        cell = ended(here, valkey.url, words, CONDITIONS[name])
        if found := faults(words, CONDITIONS[name], plain[name_of(words)], cell):
            wrong[name_of(words), name] = (found, cell)
    assert wrong == {}


def test_whatever_is_typed_ends_with_a_sentence(here: World, valkey: Valkey) -> None:
    wrong = {}
    for words in ODD:
        cell = ended(here, valkey.url, words, PLAIN)
        if found := faults(words, PLAIN, cell, cell):
            wrong[" ".join(words)[:80]] = (found, cell)
    assert wrong == {}


COLOURED = {
    "worker.audit": "\x1b[1;31mDrift",
    "worker.audit findings 1": "\x1b[1;31mAudit 1: Drift",
    "worker.backfill --status": "\x1b[1;33mpaused",
    "worker.backfill --list": "\x1b[33mpaused",
    "worker.dead_letters list": "\x1b[31mdead",
    "worker.preflight": "\x1b[32mok",
    "worker.status": "\x1b[1;3",
}


def test_every_verdict_has_its_colour_unless_colours_are_not_wanted(here: World, valkey: Valkey) -> None:
    for words in COMMANDS:
        if (start := COLOURED.get(name_of(words))) is None:
            continue
        seen = Condition(variables={"FORCE_COLOR": "1", "TERM": "xterm"})
        assert start in ended(here, valkey.url, words, seen).stdout
        unwanted = Condition(variables={"FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": "1"})
        assert re.findall(r"\x1b\[[0-9;]*3[0-7]m", ended(here, valkey.url, words, unwanted).stdout) == []


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_every_command_meets_every_condition(
    here: World, valkey: Valkey, plain: dict[str, Ended], tmp_path: Path
) -> None:
    wrong = {}
    rows = ["| command | condition | status | last line |", "|---|---|---|---|"]
    for words in [*COMMANDS, ALEMBIC]:
        before = plain.get(name_of(words)) or ended(here, valkey.url, words, PLAIN)
        rows.append(f"| {name_of(words)} | plain | {before.status} | {before.last} |")
        for name, condition in CONDITIONS.items():
            if words is ALEMBIC and (name in NOT_OF_ALEMBIC or not condition.says):
                continue
            cell = ended(here, valkey.url, words, condition)
            rows.append(f"| {name_of(words)} | {name} | {cell.status} | {cell.last} |")
            if found := faults(words, condition, before, cell):
                wrong[name_of(words), name] = (found, cell)
    (tmp_path / "table.md").write_text("\n".join(rows), encoding="utf-8")
    assert wrong == {}


@pytest.mark.long
async def test_a_worker_waits_in_words_for_a_database_that_it_cannot_use(here: World, valkey: Valkey) -> None:
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(running(["-m", "worker"], environment(url, valkey.url)))
            for name, url in here.urls.items()
        }
        for name, worker in workers.items():
            async with asyncio.timeout(HANG_SECONDS):
                while len(worker.logged("worker_heartbeat")) < 2 and worker.process.poll() is None:
                    await asyncio.sleep(0.1)
            worker.signal(signal.SIGTERM)
            assert await worker.exit_code() == 0, (name, worker.output)
            assert "Traceback" not in worker.output
            assert {letter for letter in worker.output if not letter.isprintable()} == {"\n"}
