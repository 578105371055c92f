"""What a machine lacks is said once, at the end: the plugin that counts what was not tried."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked import ROOT
from tests.programs import PROGRAMS, TEST, promises_not_tried

SUITE = """
import pytest
from tests.programs import needed

@pytest.fixture(scope="session")
def promtool() -> str:
    return needed("promtool")

def test_needs_one(promtool: str) -> None: ...

@pytest.mark.parametrize("case", [1, 2])
def test_needs_another(case: int) -> None:
    needed("dot")

@pytest.mark.twin
def test_runs_on_a_twin(promtool: str) -> None: ...

def test_needs_none() -> None: ...

def test_cannot_run_here() -> None:
    pytest.skip("no locale")
"""


def run_where_both_are_missing(directory: Path, *more: str, **env: str) -> tuple[int, str]:
    """Run a suite that needs two programs where there is none; return its status and what it says."""
    (directory / "pytest.ini").write_text("[pytest]\nmarkers = twin\n")
    (directory / "test_it.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "xdist.plugin", "-p", "tests.programs", *more]
    ran = subprocess.run(
        command,
        cwd=directory,
        env={"PATH": str(directory), "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout


@pytest.mark.parametrize("more", [(), ("-n", "2")], ids=["in one process", "in several"])
def test_what_was_not_tried_for_want_of_programs_is_the_last_line(
    more: tuple[str, ...], tmp_path: Path
) -> None:
    status, said = run_where_both_are_missing(tmp_path, *more)
    assert status == 0
    assert said.splitlines()[-1] == (
        "Not tried for want of programs: 3 tests, 1 run on a twin. apt-get install prometheus graphviz"
    )


def test_where_none_is_missing_nothing_is_said(tmp_path: Path) -> None:
    status, said = run_where_both_are_missing(tmp_path, "-k", "none or here")
    assert status == 0
    assert "Not tried" not in said


def test_in_ci_a_missing_program_is_a_failure(tmp_path: Path) -> None:
    status, said = run_where_both_are_missing(tmp_path, CI="true")
    assert status == 1
    assert "no promtool: apt-get install prometheus" in said
    assert "2 failed, 1 passed, 1 skipped, 2 errors" in said


def test_promises_are_counted_by_whether_any_of_their_tests_was_tried() -> None:
    page = (
        "| promise | tests |\n"
        "| **kept** | `tests/a.py::test_1` |\n"
        "| **wholly** | `tests/a.py::test_2`<br>`tests/a.py::test_3` |\n"
        "| **partly** | `tests/a.py::test_1`<br>`tests/a.py::test_2` |\n"
    )
    skipped, tried = {"tests/a.py::test_2", "tests/a.py::test_3"}, {"tests/a.py::test_1"}
    assert promises_not_tried(page, skipped, tried) == (1, 1)


def test_every_promise_of_the_real_page_is_understood() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    assert promises_not_tried(page, set(TEST.findall(page)), set()) == (page.count("\n| **"), 0)


def test_a_program_is_found_on_path_or_where_a_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    assert PROGRAMS["chromium"].find() is None
    program = tmp_path / "chromium-browser"
    program.touch(0o755)
    assert PROGRAMS["chromium"].find() == str(program)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch(0o755)
    monkeypatch.setenv("CHROMIUM", str(elsewhere))
    assert PROGRAMS["chromium"].find() == str(elsewhere)
    monkeypatch.setenv("CHROMIUM", "/nowhere")
    assert PROGRAMS["chromium"].find() is None
    java = tmp_path / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.touch(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert PROGRAMS["java"].find() == str(java)


# Java and an engine of containers have runs of their own.
BESIDE = {"java", "docker", "dockerd", "docker-compose", "mmdebstrap"}


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in BESIDE])
def test_what_the_suite_needs_is_installed_where_it_decides(name: str) -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert f"missing+=({PROGRAMS[name].package})" in script
