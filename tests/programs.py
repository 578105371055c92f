"""Programs of the system that some tests need: where they are looked for, and which package brings each.

What needs one that is missing is skipped, and the run ends with a line that says how much was not tried. In
CI a missing program is a failure: a check that is always skipped is none. This is a pytest plugin, too.
"""

import os
import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEST = re.compile(r"`(tests/[\w/]+\.py::\w+)`")


@dataclass(frozen=True)
class Program:
    """How a program is found: a variable may name its place, or what that is below."""

    package: str
    names: tuple[str, ...]
    variable: str = ""
    below: str = ""
    more_places: tuple[str, ...] = ()

    def find(self) -> str | None:
        """Return its path; None where there is none."""
        if named := os.environ.get(self.variable):
            return shutil.which(str(Path(named) / self.below))
        places = os.pathsep.join([os.environ.get("PATH", ""), *self.more_places])
        return next((path for name in self.names if (path := shutil.which(name, path=places))), None)


PROGRAMS = {
    "chromium": Program("chromium", ("chromium", "chromium-browser", "google-chrome"), "CHROMIUM"),
    "promtool": Program("prometheus", ("promtool",)),
    "dot": Program("graphviz", ("dot",)),
    "pgbouncer": Program("pgbouncer", ("pgbouncer",), "PGBOUNCER", more_places=("/usr/sbin",)),
    "curl": Program("curl", ("curl",)),
    "docker": Program("docker.io", ("docker",)),
    "dockerd": Program("docker.io", ("dockerd",), more_places=("/usr/sbin",)),
    "docker-compose": Program("docker-compose", ("docker-compose",)),
    "mmdebstrap": Program("mmdebstrap", ("mmdebstrap",)),
    "java": Program("default-jre-headless", ("java",), "JAVA_HOME", "bin/java"),
}


def needed(name: str) -> str:
    """Return where this program is; where it is missing, skip the test that asks, and in CI fail it."""
    if found := PROGRAMS[name].find():
        return found
    reason = f"no {name}: apt-get install {PROGRAMS[name].package}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


MISSING = re.compile(rf"Skipped: no ({'|'.join(PROGRAMS)}): apt-get install \S+")


@dataclass(eq=False)  # pytest puts plugins into sets
class NotTried:
    """What a session skipped for want of programs."""

    programs: set[str] = field(default_factory=set)
    tests: set[str] = field(default_factory=set)
    twins: set[str] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note each report; those of pytest-xdist's workers come here, too."""
        on_twin = "twin" in report.keywords  # the mark
        if report.skipped and (program := program_missed(report)):
            self.programs.add(program)
            (self.twins if on_twin else self.tests).add(report.nodeid)
        elif report.when == "call" and not report.skipped and not on_twin:
            self.tried.add(report.nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # around the one that prints the summary: ours comes last
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        """Say at the very end what was not tried."""
        yield
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and self.programs:
            reporter.write_line(self.line(), yellow=True)

    def line(self) -> str:
        """Return the sentence, with the command that installs what was missed."""
        page = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
        wholly, partly = promises_not_tried(page, functions(self.tests), functions(self.tried))
        counted = [count(len(self.tests), "test"), count(len(self.twins), "run on a twin", "runs on twins")]
        counted += [count(wholly, "promise of docs/guarantees.md", "promises of docs/guarantees.md")]
        counted += [f"{count(partly, 'promise')} in part"] if partly else []
        packages = [program.package for name, program in PROGRAMS.items() if name in self.programs]
        what = ", ".join(part for part in counted if part)
        return f"Not tried for want of programs: {what}. apt-get install {' '.join(packages)}"


def program_missed(report: pytest.TestReport) -> str | None:
    """Return for want of which program a test was skipped; None: for another reason."""
    if not isinstance(report.longrepr, tuple | list):
        return None
    found = MISSING.fullmatch(str(report.longrepr[-1]))
    return found and found[1]


def functions(tests: Collection[str]) -> set[str]:
    return {test.partition("[")[0] for test in tests}


def promises_not_tried(page: str, skipped: set[str], tried: set[str]) -> tuple[int, int]:
    """Count the promises of which no test was tried, and those of which some were not."""
    rows = [set(TEST.findall(line)) for line in page.splitlines() if line.startswith("| **")]
    missed = [row for row in rows if row & skipped]
    return sum(not row & tried for row in missed), sum(bool(row & tried) for row in missed)


def count(number: int, one: str, many: str = "") -> str:
    """Return the number with its word; nothing for none."""
    return f"{number} {one if number == 1 else many or one + 's'}" if number else ""


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(NotTried(), "tests.programs.not-tried")
