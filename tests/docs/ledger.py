"""How each command of README.md is shown to work: the account that must be complete."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Runs:
    """It is typed as it stands, succeeds, and shows this."""

    shows: str = ""


@dataclass(frozen=True)
class Serves:
    """It is typed as it stands, shows this, and runs until Ctrl-C."""

    shows: str


@dataclass(frozen=True)
class Given:
    """Its value is an example, in whose place a reader puts their own; the test has put that there before."""


@dataclass(frozen=True)
class FollowedInTutorial:
    """The tutorial asks for the very same, so it is run there."""


@dataclass(frozen=True)
class RunsElsewhere:
    """It is not run here, for a reason; `by` names what runs the same, as FILE::TEST or a file that says it.

    Where `plans` is given, `make --dry-run` of it says that.
    """

    by: str
    why: str
    plans: str = ""


Account = Runs | Serves | Given | FollowedInTutorial | RunsElsewhere

LONG = "it takes minutes"

README_LEDGER: Mapping[str, Account] = {
    "make run": FollowedInTutorial(),
    "make test": RunsElsewhere(
        by=".ci/run", why="this test is a part of it", plans="-m pytest -n 4 --dist loadgroup"
    ),
    "make run PYTHON=python3.12": RunsElsewhere(
        by="tests/local/test_make_run.py::test_what_it_prints_works_and_an_interrupt_ends_it",
        why="a machine need not have that Python",
        plans="-m deploy.local",
    ),
    "make help": Runs(shows="make run"),
    "docker compose up --build": RunsElsewhere(
        by="tests/image/test_compose.py::test_a_write_arrives",
        why="it needs a container engine, which `make image-test` brings",
    ),
    "export DATABASE_URL=postgresql://user:password@host:5432/database": Given(),
    "export REDIS_URL=redis://host:6379": Given(),
    "alembic upgrade head": Runs(),
    'psql "$DATABASE_URL" -f deploy/roles.sql': Runs(shows="COMMIT"),
    "python -m worker.preflight": Runs(shows="0 stop"),
    "uvicorn api.main:app": Serves(shows="Application startup complete"),
    "python -m worker": Serves(shows="worker_started"),
    "python -m worker.capture status": Runs(shows="Not installed"),
    "python -m worker.status": RunsElsewhere(
        by="tests/status/test_command.py"
        "::test_it_ends_with_0_where_all_is_well_and_with_1_and_what_to_type_where_not",
        why="its status is 1 until all is well",
    ),
    "python -m worker.backfill --wait": FollowedInTutorial(),
    "python -m worker.audit": FollowedInTutorial(),
    "python -m worker.audit --repair": FollowedInTutorial(),
    "python -m worker.dead_letters list": FollowedInTutorial(),
    "python migrations/phase1_backfill_project_collections.py --rollback": FollowedInTutorial(),
    "LOG_FILE=worker.log python -m worker": Serves(shows="worker_started"),
    "python -m worker.dashboard worker.log --serve": Serves(shows="http://127.0.0.1:"),
    "python -m worker.dashboard worker.log --html page.html": Runs(),
    "arq worker.main.WorkerSettings": RunsElsewhere(
        by="tests/acceptance/test_worker_process.py::test_arqs_own_command_runs_the_same_jobs",
        why="it runs there with writes to apply",
    ),
    "make bench": RunsElsewhere(
        by="tests/benchmarks/test_cases.py::test_a_case_measures_on_services_of_its_own_and_finds_its_work_done_right",
        why=LONG,
        plans="-m benchmarks --scale normal",
    ),
}


def faults(
    commands: Iterable[str], ledger: Mapping[str, Account], tutorial: Iterable[str], root: Path
) -> list[str]:
    """Say what is wrong with the account of a page's commands.

    Args:
        commands: those of the page.
        ledger: how each is shown to work.
        tutorial: those that are run because the tutorial's blocks ask for them.
        root: where files that the ledger names are looked for.

    """
    asked, followed = list(commands), set(tutorial)
    found = [f"neither run nor listed: {command}" for command in asked if command not in ledger]
    found += [f"listed, but no longer on the page: {command}" for command in ledger if command not in asked]
    for command, account in ledger.items():
        if isinstance(account, FollowedInTutorial) and command not in followed:
            found.append(f"not in the tutorial: {command}")
        if isinstance(account, RunsElsewhere) and not runs_in(account.by, command, root):
            found.append(f"not run by {account.by}: {command}")
    return found


def runs_in(place: str, command: str, root: Path) -> bool:
    """Say whether the test is there, or, where a file is named, whether the command is a line of it."""
    name, _, test = place.partition("::")
    file = root / name
    if not file.is_file():
        return False
    lines = file.read_text(encoding="utf-8").splitlines()
    return any(f"def {test}(" in line for line in lines) if test else command in lines
