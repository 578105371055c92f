"""What README.md and docs/tutorial.md ask a reader to type does what they say."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.postgres import Postgres
from deploy.local.valkey import Valkey
from tests.databases import Databases
from tests.docs.checkout import copy_checkout
from tests.docs.ledger import (
    README_LEDGER,
    Account,
    FollowedInTutorial,
    Given,
    Runs,
    RunsElsewhere,
    Serves,
    faults,
)
from tests.docs.pages import blocks_of, commands_of, fenced_commands
from tests.docs.reader import Reader
from tests.docs.terminal import Terminal, terminal
from tests.forked import ROOT
from tests.processes import HANG_SECONDS, free_port
from tests.programs import needed

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
INTERRUPTED = (0, 130)  # 130 is how a shell reports that Ctrl-C ended a program


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("reader") / "collection-sync")


def of_a_reader(*programs: Path, **more: str) -> dict[str, str]:
    """Return the environment of somebody who has just opened a terminal, with these directories on PATH."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LOCPATH") if name in os.environ}
    return kept | more | {"PATH": ":".join([*map(str, programs), kept["PATH"]])}


@pytest.mark.wide
@pytest.mark.slow
def test_the_tutorial_can_be_followed_word_for_word(checkout: Path) -> None:
    needed("curl")
    environment = of_a_reader()
    with terminal(checkout, environment) as first, terminal(checkout, environment) as second:
        Reader(first, second).follow(blocks_of(TUTORIAL))


@pytest.fixture
def readers_terminal(
    checkout: Path, postgres: Postgres, databases: Databases, valkey: Valkey
) -> Iterator[tuple[Terminal, dict[str, str]]]:
    """A terminal in a checkout with its environment active, and the addresses that this reader has."""
    programs = (Path(sys.executable).parent, postgres.binary("psql").parent)
    environment = of_a_reader(*programs, UVICORN_PORT=str(free_port()))  # somebody may have the default
    with databases.clone("template1") as url, terminal(checkout, environment) as shell:
        yield shell, {"DATABASE_URL": url, "REDIS_URL": valkey.url}


@pytest.mark.slow
def test_the_commands_of_the_readme_run_as_they_stand(
    readers_terminal: tuple[Terminal, dict[str, str]], checkout: Path
) -> None:
    shell, addresses = readers_terminal
    for command in commands_of(README):
        check(shell, command, README_LEDGER[command], addresses)
    assert "<html" in (checkout / "page.html").read_text(encoding="utf-8")


def check(shell: Terminal, command: str, account: Account, addresses: dict[str, str]) -> None:
    """Show of a command what its account says."""
    match account:
        case Runs():
            assert account.shows in succeeds(shell, command)
        case Serves():
            shell.type(command)
            until_shown(shell, account.shows)
            shell.interrupt()
            shown, status = shell.until_ready()
            assert status in INTERRUPTED, f"{command}: {status}\n{shown}"
        case Given():
            succeeds(shell, command)
            name = command.removeprefix("export ").partition("=")[0]
            succeeds(shell, f"export {name}={addresses[name]}")
        case RunsElsewhere(plans=plans) if plans:
            assert plans in succeeds(shell, f"{command} --dry-run")
        case RunsElsewhere() | FollowedInTutorial():
            pass


def succeeds(shell: Terminal, command: str) -> str:
    """Type a command that must succeed, and return what it showed."""
    shown, status = shell.run(command)
    assert status == 0, f"{command}: {status}\n{shown}"
    return shown


def until_shown(shell: Terminal, text: str) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while text not in shell.unread:
        assert time.monotonic() < deadline, f"no {text!r} in:\n{shell.unread}"
        time.sleep(0.05)


def test_every_command_of_the_readme_is_run_or_accounted_for() -> None:
    assert faults(commands_of(README), README_LEDGER, fenced_commands(TUTORIAL), ROOT) == []


def test_the_tutorial_names_no_command_that_its_blocks_do_not_run() -> None:
    assert faults(commands_of(TUTORIAL), dict.fromkeys(fenced_commands(TUTORIAL), Runs()), [], ROOT) == []
