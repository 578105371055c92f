"""Lines, and the file they go to, in processes of their own: logging is a process's one and all."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from shared.logs import log_many
from tests.processes import ROOT

BEGIN = """
import resource, sys
from pathlib import Path
import structlog
from shared.logs import configure_logging, log_many

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
    return [json.loads(line) for line in io.StringIO(ran.stdout)]


def lines_of(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


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


ODD = {
    "text": 'a "}, {"timestamp": " ü\n\u2028',
    "list": ["}, {", None],
    "object": {"timestamp": 1.5},
    "none": None,
}


def test_many_lines_at_once_are_those_that_a_logger_writes_with_one_timestamp(tmp_path: Path) -> None:
    script = f"""
for level in ("info", "error", "info"):
    getattr(log, level)("odd", **{ODD!r})
log_many("odd", [(level, {ODD!r}) for level in ("info", "error", "info")])
log_many("odd", [])
"""
    printed = run(script, file := tmp_path / "log")
    assert lines_of(file) == printed
    lines = [line.split(", ", 1) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [rest for _, rest in lines[:3]] == [rest for _, rest in lines[3:]]
    assert len({timestamp for timestamp, _ in lines[3:]}) == 1
    assert [line["level"] for line in printed] == ["info", "error", "info"] * 2


def test_many_lines_at_once_are_seen_by_a_test_that_captures_them() -> None:
    with capture_logs() as lines:
        log_many("odd", [("info", {"number": 1}), ("error", {"number": 2})])
    assert lines == [
        {"event": "odd", "log_level": "info", "number": 1},
        {"event": "odd", "log_level": "error", "number": 2},
    ]


def test_of_many_lines_at_once_those_that_fit_on_the_disk_are_kept_and_the_others_counted(
    tmp_path: Path,
) -> None:
    many = 'log.info("written", number=number)'
    script = FILL_UP.format(room=600).replace(
        many, 'log_many("written", [("info", {"number": 3 * number + row}) for row in range(3)])'
    )
    printed = run(script, file := tmp_path / "log")
    kept = [line["number"] for line in lines_of(file) if line["event"] == "written"]
    assert kept == list(range(3, 3 + len(kept)))
    assert 0 < len(kept) < 9
    restored = next(line for line in lines_of(file) if line["event"] == "log_file_restored")
    assert restored["lost"] == len([line for line in printed if line not in lines_of(file)])
