"""What loggers write, ours and those of libraries, in processes of their own."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from shared.logs.setup import log_many
from tests.log_lines import lines_of
from tests.processes import HANG_SECONDS
from tests.shared.scripts import run, start

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
    lines = [line.split(",", 1) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [rest for _, rest in lines[:3]] == [rest for _, rest in lines[3:]]
    assert len({timestamp for timestamp, _ in lines[3:]}) == 1
    assert [line["level"] for line in printed] == ["info", "error", "info"] * 2


@pytest.mark.usefixtures("counts_as_unseen")
def test_many_lines_at_once_are_seen_by_a_test_that_captures_them() -> None:
    with capture_logs() as lines:
        log_many("log_file_restored", [("warning", {"lost": 1}), ("warning", {"lost": 2})])
    assert lines == [
        {"event": "log_file_restored", "log_level": "warning", "lost": 1},
        {"event": "log_file_restored", "log_level": "warning", "lost": 2},
    ]


LIBRARY = """
import logging, warnings
theirs = logging.getLogger("a.library")
theirs.debug("not ours to know")
theirs.setLevel(logging.DEBUG)
theirs.debug("not ours to know")
theirs.info("%d of %s", 1, "2", extra={"secret": "x", "event": "forged", "_record": 1})
theirs.log(35, "between two levels")
theirs.critical({"event": "forged"})
try:
    raise ValueError("wrong")
except ValueError:
    theirs.exception("failed", stack_info=True)
theirs.exception("nothing is wrong")
warnings.warn("old", DeprecationWarning)
"""


def test_what_a_library_logs_is_a_message_of_its_own_words_and_no_other_fields(tmp_path: Path) -> None:
    printed = run(LIBRARY, file := tmp_path / "log")
    assert lines_of(file) == printed
    assert [list(line)[:7] for line in printed] == [
        ["timestamp", "level", "event", "process", "schema_version", "logger", "message"]
    ] * len(printed)
    assert {line["event"] for line in printed} == {"library_message"}
    *said, warned = [(line["level"], line["logger"], line["message"]) for line in printed]
    assert said == [
        ("info", "a.library", "1 of 2"),
        ("warning", "a.library", "between two levels"),
        ("critical", "a.library", "{'event': 'forged'}"),
        ("error", "a.library", "failed"),
        ("error", "a.library", "nothing is wrong"),
    ]
    assert warned[:2] == ("warning", "py.warnings")
    assert "DeprecationWarning: old" in warned[2]
    assert printed[3]["exception"].endswith("ValueError: wrong")
    assert "Traceback" in printed[3]["exception"]
    assert printed[3]["stack"].startswith("Stack (most recent call last):")
    assert not {"exception", "stack"} & printed[4].keys()


def test_what_a_library_cannot_say_is_reported_on_stderr_and_harms_nobody(tmp_path: Path) -> None:
    script = """
import logging
logging.getLogger("a.library").error("%d", "no number")
log.info("on we go")
"""
    with start(script, file := tmp_path / "log") as process:
        stdout, stderr = process.communicate(timeout=HANG_SECONDS)
    assert "TypeError" in stderr
    assert [line["event"] for line in lines_of(file)] == ["on we go"]
    assert stdout.count("\n") == 1


def test_a_reader_of_stdout_that_is_gone_harms_nobody(tmp_path: Path) -> None:
    script = """
log.info("one")
sys.stdin.read()
log.info("two")
sys.stdout = None
"""
    with start(script, file := tmp_path / "log") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.stdin.close()
        process.wait(HANG_SECONDS)
    assert process.returncode == 0
    assert [line["event"] for line in lines_of(file)] == ["one", "two"]
