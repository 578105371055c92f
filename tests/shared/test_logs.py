"""What loggers write, ours and those of libraries, in processes of their own."""

from pathlib import Path

from structlog.testing import capture_logs

from shared.logs import log_many
from tests.log_lines import lines_of
from tests.shared.scripts import run

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
        log_many("log_file_restored", [("warning", {"lost": 1}), ("warning", {"lost": 2})])
    assert lines == [
        {"event": "log_file_restored", "log_level": "warning", "lost": 1},
        {"event": "log_file_restored", "log_level": "warning", "lost": 2},
    ]
