"""Every way in which a process of the product is started, to be called in this process as it is by Python."""

import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

from alembic.config import main as alembic

from shared.settings import CommandSettings, DatabaseSettings, Settings, TurnSettings
from tests.commands.test_imports import SCRIPTS
from tests.forked import ROOT


@dataclass(frozen=True)
class Start:
    """How a process starts, and which settings it reads; None where it reads none."""

    reads: type[DatabaseSettings] | None
    words: Sequence[str] = ()
    given: frozenset[str] = frozenset()  # variables that it can do without, although they are required


# By the script's path. A script that is not here makes a test fail: say what it reads.
SCRIPTED: Mapping[str, Sequence[Start]] = {
    "worker/__main__.py": (Start(Settings), Start(Settings, ["--check"])),
    "worker/audit/__main__.py": (Start(CommandSettings), Start(CommandSettings, ["findings", "1"])),
    "worker/backfill/__main__.py": (Start(CommandSettings), Start(CommandSettings, ["--status"])),
    "worker/capture/__main__.py": (Start(CommandSettings, ["status"]),),
    "worker/dashboard/__main__.py": (Start(None, ["no such log"]),),
    "worker/dead_letters/__main__.py": (Start(CommandSettings, ["list"]),),
    "worker/phase/__main__.py": (Start(TurnSettings, ["status"]), Start(TurnSettings, ["back"])),
    "worker/preflight/__main__.py": (Start(CommandSettings),),
    "worker/status/__main__.py": (Start(CommandSettings),),
    "deploy/local/__main__.py": (Start(Settings, given=frozenset({"DATABASE_URL", "REDIS_URL"})),),
    "migrations/phase1_backfill_project_collections.py": (Start(CommandSettings, ["--dry-run"]),),
}


def unlisted() -> set[str]:
    """Return the scripts of which SCRIPTED says nothing."""
    return {path.as_posix() for path in SCRIPTS} - SCRIPTED.keys()


def starts() -> dict[str, tuple[Start, Callable[[], object]]]:
    """Return each start by its command line, with what does it."""
    scripts = {
        " ".join([*words(path), *start.words]): (start, partial(run_script, path, start.words))
        for path, ways in SCRIPTED.items()
        for start in ways
    }
    return scripts | {
        "uvicorn api.main:app": (Start(Settings), lambda: import_module("api.main").app),
        "arq worker.main.WorkerSettings": (
            Start(Settings),
            lambda: import_module("worker.main").WorkerSettings,
        ),
        "alembic upgrade head": (Start(DatabaseSettings), partial(alembic, ["upgrade", "head"])),
    }


def words(path: str) -> list[str]:
    """Return what follows `python` on the command line of a script."""
    return ["-m", ".".join(Path(path).parent.parts)] if path.endswith("__main__.py") else [path]


def run_script(path: str, arguments: Sequence[str]) -> None:
    """Do what Python does with this script and these arguments."""
    sys.argv = [path, *arguments]
    runpy.run_path(str(ROOT / path), run_name="__main__")
