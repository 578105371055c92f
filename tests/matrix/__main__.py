"""Run the tests that depend on versions on other servers and other Pythons, and show a table of what was run.

Exit status: 0 when all that was asked for was run and passed, 1 when something failed, 2 for wrong usage, 3
when the rest passed and something could not be run on this machine.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.local.postgres import BINARIES_VARIABLE, find_binaries
from deploy.local.valkey import SERVER_VARIABLE, find_server
from tests.forked import ROOT
from tests.matrix.cells import Cell, MissingError, cell, names, said_by
from tests.matrix.interpreters import with_our_packages

LOGS = ROOT / ".local" / "matrix"
CLOSING = re.compile(r"^(\d+ [a-z]+.*) in [\d.]+s", re.MULTILINE)
SHOWN_LOG_LINES = 60


@dataclass(frozen=True)
class Row:
    """What became of a cell: what ran in which versions, and what pytest said at the end."""

    name: str
    versions: str
    said: str
    status: int | None  # of pytest; None: nothing was run
    seconds: float = 0.0

    def __str__(self) -> str:
        state = {0: "passed", None: "NOT RUN"}.get(self.status, "FAILED")
        took = f"{self.seconds // 60:.0f} min {self.seconds % 60:.0f} s" if self.status is not None else ""
        return " | ".join((f"{self.name:12}", f"{state:7}", self.versions, self.said, took))


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    rows = []
    for name in options.names or names():
        rows.append(run(name, options.n, is_quick=options.quick))
        say(str(rows[-1]))
    say("", *map(str, rows))
    return verdict(rows)


def verdict(rows: Sequence[Row]) -> int:
    """Return the exit status; only what was run has passed."""
    if any(row.status for row in rows):
        return 1
    return 0 if rows and all(row.status == 0 for row in rows) else 3


def run(name: str, processes: int, *, is_quick: bool) -> Row:
    """Run a cell's tests and keep what they print; show its end where they fail."""
    try:
        found = cell(name, is_quick=is_quick)
        python = with_our_packages(found.python)
    except MissingError as missing:
        return Row(name, "", str(missing), None)
    command = [str(python), "-m", "pytest", "-q", "-n", str(processes), "--dist", "loadgroup", *found.tests]
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{name}.log"
    began = time.monotonic()
    with log.open("w") as output:
        status = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | found.env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    text = log.read_text(errors="replace")
    if status:
        say(*text.splitlines()[-SHOWN_LOG_LINES:], f"All of it: {log.relative_to(ROOT)}")
    closing = CLOSING.findall(text)
    said = closing[-1] if closing else f"pytest ended with {status}"
    return Row(name, versions(found, python), said, status, time.monotonic() - began)


def versions(found: Cell, python: Path) -> str:
    """Return what each part of a cell says that it is."""
    postgres = Path(found.env.get(BINARIES_VARIABLE) or find_binaries()) / "postgres"
    redis = Path(found.env.get(SERVER_VARIABLE) or find_server())
    parts = (
        ("PostgreSQL", postgres),
        (redis.name.removesuffix("-server").title(), redis),
        ("Python", python),
    )
    return ", ".join(f"{name} {number(said_by(str(program), '--version'))}" for name, program in parts)


def number(said: str) -> str:
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else f"of no known version ({said})"


def say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)  # noqa: T201 - a command speaks to a terminal


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    known = ", ".join(names())
    parser = argparse.ArgumentParser(
        prog="python -m tests.matrix",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"of {known}; none: all of them")
    parser.add_argument("--quick", action="store_true", help="only some of the tests: about a minute")
    parser.add_argument("-n", type=int, default=4, metavar="N", help="processes that run tests (4)")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(names()):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {known}")
    return options


if __name__ == "__main__":
    for variable in (BINARIES_VARIABLE, SERVER_VARIABLE):
        os.environ.pop(variable, None)  # each cell says for itself what it runs on
    sys.exit(main())
