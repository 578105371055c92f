"""That no line outside the contract goes unnoticed: the plugin that holds all tests' lines against it."""

import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from shared.logs.contract import CONTRACT
from shared.logs.setup import log_many
from tests.forked import ROOT
from tests.log_lines import breaches, hold_printed
from tests.logs.plugin import WHOLE_SUITE
from tests.processes import HANG_SECONDS, environment, running

LINE = (
    '{"timestamp": "2026-01-01T00:00:00Z", "level": "info", "event": "redis_restored",'
    ' "process": "api", "schema_version": 2}\n'
)


pytestmark = pytest.mark.usefixtures("counts_as_unseen")


def found() -> list[str]:
    """Return in which ways the lines so far broke the contract, and forgive them."""
    said = [breach.partition(":")[0] for breach in breaches]
    breaches.clear()
    return said


def test_a_line_of_the_test_s_own_process_is_held_against_the_contract_captured_or_not() -> None:
    log = structlog.get_logger()
    log.info("unheard_of")
    assert found() == ["unknown event 'unheard_of'"]
    with capture_logs() as lines:
        log.bind(error="ENOSPC").error("log_file_failed", more=1)
        log_many("redis_restored", [("info", {}), ("error", {})])
    assert found() == ["unknown field more", "level is error, not info"]
    assert [line["event"] for line in lines] == ["log_file_failed", "redis_restored", "redis_restored"]
    log.bind(error="ENOSPC").error("log_file_failed")
    assert found() == []


def test_so_is_a_line_of_another_process() -> None:
    line = LINE.replace("}", ', "more": 1}')
    script = f"print({line!r}, end='')"
    with running(["-c", script], environment("", "")) as process:
        process.process.wait(HANG_SECONDS)
    assert found() == ["unknown field more"]


def test_what_is_no_line_of_the_log_is_left_alone() -> None:
    hold_printed(f'usage: command\n{{"verdict": "in_sync"}}\n{LINE}{LINE[:-20]}')
    assert found() == []


def whole_suite(directory: Path, events: list[str]) -> tuple[int, str]:
    """Run a suite of two tests, the first of which sees these events; return its status and what it says."""
    (directory / "pytest.ini").write_text(
        "[pytest]\ntestpaths = .\nmarkers = wide\n  long\n  debezium\n  image\n"
    )
    (directory / "test_it.py").write_text(
        "from tests.log_lines import seen\n\n"
        f"def test_first() -> None:\n    seen.update({events!r})\n\n"
        "def test_second() -> None:\n    pass\n"
    )
    plugins = ["-p", "xdist.plugin", "-p", "tests.logs.plugin"]
    command = [sys.executable, "-m", "pytest", *plugins, "-n", "2", "-m", WHOLE_SUITE]
    ran = subprocess.run(
        command,
        cwd=directory,
        env={**environment("", ""), "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout


def test_make_test_runs_what_is_taken_for_the_whole_suite() -> None:
    """Otherwise no run would ever ask which events were seen."""
    assert f'"-m", "{WHOLE_SUITE}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "pytest -n 4 --dist loadgroup $(ARGS)\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_whole_suite_fails_for_an_event_that_no_test_had_written(tmp_path: Path) -> None:
    assert whole_suite(tmp_path, list(CONTRACT))[0] == 0
    status, said = whole_suite(tmp_path, [name for name in CONTRACT if name != "redis_lost"])
    assert status == 1
    assert "FAILED log contract: no test had redis_lost written" in said
    assert said.count("FAILED") == 1
