"""Run every guarantee's tests as they are, then with each twin in the place of its mechanism.

A twin is convicted when a test of its own fails on it, by an assertion about the outcome. Exit status: 0
when the tests pass as they are and each convicts its twins, 1 when not, 2 for wrong usage.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.twins.registry import TWINS

ROOT = Path(__file__).parent.parent.parent
AS_IT_IS = "as it is"
PYTEST = [
    *(sys.executable, "-m", "pytest", "-p", "tests.twins.plugin", "--quiet", "--tb=no", "--durations=0"),
    "--timeout=60",
    # What a twin leaves behind may be found by the garbage collector in the middle of another test.
    *("-W", "ignore::pytest.PytestUnraisableExceptionWarning"),
    # It imports modules at the end of the session, among what failing tests left behind. Python before 3.11.8
    # breaks off when such garbage is collected in the middle, and prints a traceback.
    *("-p", "no:schemathesis"),
]


@dataclass(frozen=True)
class Verdict:
    """What one test said of one twin, or of the real thing: then `twin` is AS_IT_IS."""

    promise: str
    twin: str
    test: str
    showed: str  # convicted, acquitted, passed, failed, broken
    seconds: float
    reason: str = ""

    @property
    def is_right(self) -> bool:
        return self.showed == ("passed" if self.twin == AS_IT_IS else "convicted")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    names = options.names or list(TWINS)
    if options.list:
        for name in names:
            say(f"{name}\n  breaks: {TWINS[name].promise}", *TWINS[name].tests)
        return 0
    more = ["-n", str(options.n), *(["--twins-only"] if options.twins_only else [])]
    runs = run_pytest(names, more)
    verdicts = [*([] if options.twins_only else as_it_is(names, runs)), *with_twins(names, runs)]
    if options.json:
        say(json.dumps([asdict(verdict) for verdict in verdicts]))
    else:
        show(verdicts)
    return 0 if all(verdict.is_right for verdict in verdicts) else 1


def say(*lines: str) -> None:
    print(*lines, sep="\n    ")  # noqa: T201 - a command speaks to a terminal


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.twins", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help="twins to convict; none: all of them")
    parser.add_argument("--list", action="store_true", help="name them and run nothing")
    parser.add_argument("--json", action="store_true", help="print the verdicts for machines")
    parser.add_argument("--twins-only", action="store_true", help="where the tests as they are run anyway")
    parser.add_argument("-n", type=int, default=2, metavar="N", help="processes that run tests (2)")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in TWINS:
            parser.error(f"there is no twin {name!r}; --list names them all")
    return options


def run_pytest(names: Iterable[str], more: Sequence[str]) -> list[dict[str, Any]]:
    """Run the tests of these twins in a session of their own and return its runs; see the plugin."""
    tests = dict.fromkeys(test for name in names for test in functions(name))
    chosen = [word for name in names for word in ("--twin", name)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "runs.json"
        command = [*PYTEST, f"--twin-report={report}", *more, *chosen, *tests]
        ran = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=False)
        if not report.exists():
            sys.exit(f"{ran.stdout}\npytest came to no end: status {ran.returncode}")
        runs: list[dict[str, Any]] = json.loads(report.read_text())
        return runs


def functions(name: str) -> list[str]:
    return [test.partition("[")[0] for test in TWINS[name].tests]


def as_it_is(names: Sequence[str], runs: Sequence[dict[str, Any]]) -> list[Verdict]:
    """Judge each test of these twins once, on the real thing."""
    promises = {test: TWINS[name].promise for name in names for test in functions(name)}
    return [judge(promise, AS_IT_IS, test, runs) for test, promise in promises.items()]


def with_twins(names: Sequence[str], runs: Sequence[dict[str, Any]]) -> list[Verdict]:
    """Judge each twin by each of its tests."""
    return [judge(TWINS[name].promise, name, test, runs) for name in names for test in functions(name)]


def judge(promise: str, twin: str, test: str, runs: Sequence[dict[str, Any]]) -> Verdict:
    """Convict a twin by one case of a test that failed on it; acquit the real thing by all that passed."""
    its = [run for run in runs if (run["twin"], run["test"]) == (twin, test)]
    showed = {run["showed"] for run in its} or {"broken"}
    if twin == AS_IT_IS:
        verdict = "passed" if showed == {"passed"} else "failed"
    elif "failed" in showed:
        verdict = "convicted"
    else:
        verdict = "broken" if "broken" in showed else "acquitted"
    reasons = [run["reason"] for run in its if run["showed"] != "passed"] or [""]
    return Verdict(promise, twin, test, verdict, round(sum(run["seconds"] for run in its), 2), reasons[0])


def show(verdicts: Sequence[Verdict]) -> None:
    table = Table("promise", "twin", "test", "showed", "s", box=None, pad_edge=False)
    for verdict in verdicts:
        test = verdict.test.partition("::")[2]
        colour = "green" if verdict.is_right else "bold red"
        seconds = f"{verdict.seconds:.1f}"
        table.add_row(verdict.promise, verdict.twin, test, f"[{colour}]{verdict.showed}[/]", seconds)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    for verdict in verdicts:
        if not verdict.is_right:
            console.print(f"{verdict.twin}: {verdict.test} {verdict.showed}: {verdict.reason}", markup=False)
    twins = {verdict.twin for verdict in verdicts} - {AS_IT_IS}
    free = {verdict.twin for verdict in verdicts if not verdict.is_right} - {AS_IT_IS}
    console.print(f"{len(twins) - len(free)} of {len(twins)} twins convicted by every test of theirs")


if __name__ == "__main__":
    sys.exit(main())
