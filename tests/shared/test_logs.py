"""The log file on a disk without space, in processes of its own: logging is a process's one and all."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.processes import ROOT

BEGIN = """
import resource, sys
from pathlib import Path
import structlog
from shared.logs import configure_logging

file = Path(sys.argv[1])
configure_logging("test", file, sys.stdout)
log = structlog.get_logger()
"""
# A limit of the process fails writes as a full disk does, and can be lifted.
FILL_UP = """
log.info("fits")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + {room}, hard))
for number in range(1, 4):
    log.info("written", number=number)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.info("fits again")
log.info("fits too")
"""


def run(script: str, file: Path) -> list[dict[str, Any]]:
    """Run the script and return what it logged to stdout; it must not have complained."""
    command = [sys.executable, "-c", BEGIN + script, str(file)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    assert ran.stderr == ""
    return [json.loads(line) for line in ran.stdout.splitlines()]


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_full_disk_is_reported_once_and_costs_no_line_of_stdout() -> None:
    printed = run("for number in range(3): log.info('written', number=number)", Path("/dev/full"))
    assert [line["event"] for line in printed] == ["written", "log_file_failed", "written", "written"]
    assert printed[1]["error"] == "ENOSPC"


def test_when_there_is_space_again_the_file_goes_on_and_says_how_many_lines_it_lacks(tmp_path: Path) -> None:
    printed = run(FILL_UP.format(room=0), file := tmp_path / "log")
    missing = [line for line in printed if line not in lines_of(file)]
    assert [line["event"] for line in missing] == ["written", "log_file_failed", "written", "written"]
    assert [line["event"] for line in lines_of(file)] == [
        "fits", "fits again", "log_file_restored", "fits too",
    ]  # fmt: skip
    assert lines_of(file)[2]["lost"] == len(missing)


def test_a_line_that_the_end_of_the_disk_cut_short_is_completed(tmp_path: Path) -> None:
    run(FILL_UP.format(room=30), file := tmp_path / "log")
    assert [line.get("number") for line in lines_of(file)[:3]] == [None, 1, None]


def test_a_line_that_a_process_left_unfinished_does_not_spoil_the_next(tmp_path: Path) -> None:
    (file := tmp_path / "log").write_text('{"whole": 1}\n{"tor')
    run("log.info('next')", file)
    unfinished, following = file.read_text(encoding="utf-8").splitlines()[1:]
    assert unfinished == '{"tor'
    assert json.loads(following)["event"] == "next"
