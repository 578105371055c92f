"""Every command under every condition that its user or the server may give it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.commands.world import HOSTILE, LETTER, World
from tests.forked import ROOT, run
from tests.processes import HANG_SECONDS, environment

LAUNCH = str(Path(__file__).parent / "launch.py")
PHASE_1 = "migrations/phase1_backfill_project_collections.py"
LOG = "LOG"  # stands for the world's log
COMMANDS: list[list[str]] = [
    ["-m", "worker", "--check"],
    ["-m", "worker.audit"],
    ["-m", "worker.audit", "--json"],
    ["-m", "worker.audit", "--project", HOSTILE],
    ["-m", "worker.backfill", "--status"],
    ["-m", "worker.backfill", "--status", "--json"],
    ["-m", "worker.backfill", "--dry-run"],
    ["-m", "worker.backfill"],  # one is paused
    ["-m", "worker.capture", "status"],
    ["-m", "worker.capture", "status", "--json"],
    ["-m", "worker.capture", "install", "--mode", "count", "--sql"],
    ["-m", "worker.capture", "remove"],
    ["-m", "worker.dead_letters", "list"],
    ["-m", "worker.dead_letters", "list", "--json"],
    ["-m", "worker.dead_letters", "list", "--groups"],
    ["-m", "worker.dead_letters", "show", str(LETTER)],
    ["-m", "worker.dead_letters", "show", str(LETTER), "--json"],
    ["-m", "worker.dead_letters", "replay", "1"],
    ["-m", "worker.dead_letters", "replay", "--like", str(LETTER)],
    ["-m", "worker.dead_letters", "discard", "--all"],
    ["-m", "worker.dead_letters", "list", "--collection", HOSTILE, HOSTILE],  # wrong usage
    ["-m", "worker.dashboard", LOG],
    ["-m", "worker.dashboard", LOG, "--json"],
    ["-m", "worker.dashboard", f"/nowhere/{HOSTILE}"],
    ["-m", "worker.preflight"],
    ["-m", "worker.preflight", "--repair-sequences"],
    ["-m", "worker.status"],
    ["-m", "worker.status", "--json"],
    ["-m", "worker.status", HOSTILE],
    [PHASE_1, "--dry-run"],
    [PHASE_1, "--rollback"],
    ["-m", "worker.audit", "findings", "1"],
    ["-m", "worker.audit", "findings", "1", "--json"],
    ["-m", "worker.backfill", "--list"],
    ["-m", "worker.backfill", "--follow"],
    ["-m", "worker.backfill", "--set-rate", "5"],
    ["-m", "worker.phase", "status"],
    ["-m", "worker.phase", "status", "--json"],
    ["-m", "worker.phase", "advance", "--json"],
    ["-m", "worker.phase", "back", "--reason", HOSTILE],
    ["-m", "worker.phase", "report", "--html", f"/nowhere/{HOSTILE}"],
    ["-m", "worker.phase", "advance", "--force"],  # wrong usage
]
NO_TEXT = "\udcff"  # a byte that is none
ODD: list[list[str]] = [
    ["-m", "worker.audit", "--project", NO_TEXT],
    ["-m", "worker.audit", "--project", "x" * 100_000],
    ["-m", "worker.audit", "--interval", "1e300", "--watch", "--project", "none"],
    ["-m", "worker.audit", "--connections", "9" * 5000],
    ["-m", "worker.audit", "--connections", "²"],
    ["-m", "worker.audit", "--findings", "9" * 5000],
    ["-m", "worker.audit", "findings", NO_TEXT],
    ["-m", "worker.audit", "findings", "1", "--after", NO_TEXT],
    ["-m", "worker.backfill", "--set-rate", "²"],
    ["-m", "worker.backfill", "--project", NO_TEXT],
    ["-m", "worker.backfill", "--dry-run", "--project", NO_TEXT],
    ["-m", "worker.backfill", "--rate", "9" * 5000],
    ["-m", "worker.capture", "install"],
    ["-m", "worker.capture", "install", "--mode", NO_TEXT],
    ["-m", "worker.dead_letters", "list", "--collection", NO_TEXT],
    ["-m", "worker.dead_letters", "list", "--project", NO_TEXT],
    ["-m", "worker.dead_letters", "list", "--sqlstate", NO_TEXT],
    ["-m", "worker.dead_letters", "list", "--since", "0001-01-01T00:00+23:59"],
    ["-m", "worker.dead_letters", "list", "--until", "9999-12-31T23:59-23:59"],
    ["-m", "worker.dead_letters", "list", "--limit", str(2**63 - 1)],
    ["-m", "worker.dead_letters", "show", str(2**63 - 1)],
    ["-m", "worker.dead_letters", "show", "9" * 5000],
    ["-m", "worker.dead_letters", "replay", str(2**63 - 1)],
    ["-m", "worker.dashboard", NO_TEXT],
    ["-m", "worker.dashboard", "x" * 5000],
    ["-m", "worker.dashboard", LOG, "--html", "x" * 5000],
    ["-m", "worker.dashboard", LOG, "--html", f"/nowhere/{NO_TEXT}"],
    ["-m", "worker.dashboard", LOG, "--html", "/proc/self/mem/x"],
    ["-m", "worker.dashboard", LOG, "--serve", "0", "--host", "a..b"],
    ["-m", "worker.dashboard", LOG, "--serve", "0", "--host", "x" * 300],
    ["-m", "worker.dashboard", LOG, "--serve", "0", "--host", NO_TEXT],
    ["-m", "worker.dashboard", LOG, "--serve", "9" * 5000],
    ["-m", "worker.phase", "back", "--reason", NO_TEXT],
    ["-m", "worker.phase", "advance", "--actor", "x" * 5000],
    ["-m", "worker.phase", "report", "--html", "x" * 5000, "--epoch", "9" * 5000],
    ["-m", "worker.preflight", NO_TEXT],
    ["-m", "worker.status", NO_TEXT],
    ["-m", "worker.status", "x" * 100_000],
    [PHASE_1, NO_TEXT],
]  # what a person may type
ALEMBIC = ["-m", "alembic", "current"]
NOT_OF_ALEMBIC = {"not migrated"}  # which it is there to change; its streams are its own affair
WITHOUT_DATABASE = ("worker --check", "worker.dashboard")
IN_WORDS_OF_ITS_OWN = (
    "worker.phase status",
    "worker.preflight",
    "worker.status",
)  # tested by themselves


def name_of(words: list[str]) -> str:
    """Return the command as one reads it in a table."""
    return " ".join("HOSTILE" if HOSTILE in word else word for word in words if word != "-m")


@dataclass(frozen=True, slots=True)
class Condition:
    """What a command meets: a database, variables, streams; and what it says then, where it needs one."""

    database: str = "well"
    variables: Mapping[str, str] | None = None
    streams: Mapping[str, Any] | None = None
    says: str = ""

    def status(self, words: list[str], plain: int) -> set[int]:
        """Return what the command may end with, which without the condition ends with `plain`."""
        if self.streams and self.streams.get("full"):
            return {plain or 1}
        if self.says and plain != 2 and not name_of(words).startswith(WITHOUT_DATABASE):
            return {1}
        return {plain}


CONDITIONS = {
    "closed streams": Condition(streams={"closed": True}),
    "full disk": Condition(streams={"full": True}),
    "latin-1": Condition(streams={"encoding": "latin-1"}),
    "ascii": Condition(streams={"encoding": "ascii"}),
    "COLUMNS=0": Condition(variables={"COLUMNS": "0"}),
    "COLUMNS=20": Condition(variables={"COLUMNS": "20", "TERM": "dumb"}),
    "COLUMNS=²": Condition(variables={"COLUMNS": "²", "LINES": "-1"}),
    "database away": Condition("away", says="PostgreSQL"),
    "read-only database": Condition("read-only", says="read-only"),
    "wrong password": Condition("wrong password", says="28P01"),
    "not migrated": Condition("not migrated", says="alembic upgrade head"),
    "no rights": Condition("no rights", says="deploy/roles.sql"),
    "no such database": Condition("no such database", says="3D000"),
}


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a command."""

    status: int
    stdout: str
    stderr: str

    @property
    def said(self) -> list[str]:
        """Its lines but for those of the log."""
        return [line for line in f"{self.stdout}{self.stderr}".split("\n") if line and line[:1] != "{"]

    @property
    def last(self) -> str:
        return (self.said or [""])[-1]


def ended(world: World, redis_url: str, words: list[str], condition: Condition) -> Ended:
    """Run the command to its end."""
    env = environment(world.urls[condition.database], redis_url, **(condition.variables or {}))
    typed = [str(world.log) if word == LOG else word for word in words]
    launched = [LAUNCH, json.dumps(condition.streams or {}), *typed]
    done = run(launched, env, cwd=ROOT, timeout=HANG_SECONDS)
    return Ended(done.returncode, done.stdout, done.stderr)


def faults(words: list[str], condition: Condition, plain: Ended, cell: Ended) -> list[str]:
    """Say what is wrong with how the command ended."""
    everything = f"{cell.stdout}{cell.stderr}"
    letters = {letter for letter in everything if not letter.isprintable()} - {"\n"}
    is_heard = not (condition.streams or {}).get("closed")
    is_told = cell.status != 1 or name_of(words).startswith(WITHOUT_DATABASE)
    is_told = is_told or name_of(words).startswith(IN_WORDS_OF_ITS_OWN)
    wrong = {
        f"status {cell.status}": cell.status not in condition.status(words, plain.status),
        f"letters {letters}": bool(letters),
        "a traceback": "Traceback" in everything,
        "a fault of ours": "fault of ours" in everything,
        "a line of others": any(line.startswith("In sync\N{REPLACEMENT CHARACTER}") for line in cell.said),
        "no end of it": len(everything) > 100_000,
        "not a word": is_heard and not everything,
        f"nothing of {condition.says}": not is_told and condition.says not in everything,
    }
    return [what for what, is_so in wrong.items() if is_so]
