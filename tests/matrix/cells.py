"""What is tested on what: another server or another Python, and the tests that it matters to."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from deploy.local.postgres import BINARIES_VARIABLE
from deploy.local.valkey import SERVER_VARIABLE
from tests.engines import engine

BUNDLED = 18  # in the wheel that all tests run on unless they are told otherwise
MAJORS = (14, 15, 16, 17, BUNDLED)
MINORS = (11, 12, 13, 14)
QUICK = (
    *("tests/matrix", "tests/migrations/test_migrations.py", "tests/worker/test_relay.py"),
    *(
        "tests/audit/test_comparison.py",
        "tests/capture/test_writers.py",
        "tests/rollback/test_phase.py",
        "tests/backfill/test_run.py",
    ),
    *("tests/security/test_role_work.py", "tests/phase/test_view.py", "tests/phase/test_view_locks.py"),
)
OF_POSTGRES = (
    *("tests/matrix", "tests/migrations", "tests/worker", "tests/audit", "tests/backfill"),
    *("tests/security", "tests/capture", "tests/rollback", "tests/api"),
    *("tests/race", "tests/model", "tests/acceptance", "tests/counters", "tests/dead_letters"),
    *("tests/doorbell", "tests/field", "tests/phase", "tests/phase1", "tests/preflight"),
    *("tests/projection", "tests/scaling", "tests/shared", "tests/status", "tests/versions"),
)
OF_REDIS = (
    *("tests/matrix", "tests/doorbell", "tests/worker", "tests/race", "tests/acceptance"),
    *("tests/security", "tests/shared"),
)


class MissingError(Exception):
    """This machine lacks what a cell runs on; the message says how to get it."""


@dataclass(frozen=True)
class Cell:
    """One combination: the tests, the variables that name a server, and the Python that runs them."""

    tests: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable


def names() -> Iterator[str]:
    """Yield each cell's name; this Python is in all those of servers, and has none of its own."""
    yield from (f"postgres-{major}" for major in MAJORS)
    yield "redis-7"
    yield from (f"python-3.{minor}" for minor in MINORS if (3, minor) != sys.version_info[:2])


def cell(name: str, *, is_quick: bool = False) -> Cell:
    """Return the cell of this name; `is_quick` chooses some of the tests.

    Raises:
        MissingError: this machine has not what it takes.

    """
    kind, _, version = name.partition("-")
    if kind == "python":
        return Cell(QUICK if is_quick else ("tests",), python=interpreter(version))
    env = {SERVER_VARIABLE: redis(version)} if kind == "redis" else postgres(int(version))
    return Cell(QUICK if is_quick else OF_REDIS if kind == "redis" else OF_POSTGRES, env)


def postgres(major: int) -> dict[str, str]:
    if major == BUNDLED:
        return {}
    if (binaries := engine(major)) is None:
        raise MissingError(f"no PostgreSQL {major}: make engines")
    return {BINARIES_VARIABLE: str(binaries)}


def redis(major: str) -> str:
    program = shutil.which("redis-server")
    if program is None or f" v={major}." not in said_by(program, "--version"):
        raise MissingError(f"no Redis {major}: apt-get install redis-server")
    return program


def interpreter(version: str) -> str:
    """Return a Python of this version; one that is only announced, as a version manager does, is none."""
    program = shutil.which(f"python{version}")
    if program is None or said_by(program, "-c", "import venv; print(venv)") == "":
        raise MissingError(f"no Python {version}: put python{version} on PATH")
    return program


def said_by(*command: str) -> str:
    """Return what a program says of itself; nothing where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
