"""The table of what was run on which versions says no more than was run."""

import os
import sys
from pathlib import Path

import pytest

from tests.forked import ROOT
from tests.matrix import __main__ as matrix
from tests.matrix import cells
from tests.matrix.__main__ import CLOSING, Row, main, number, verdict
from tests.matrix.cells import OF_POSTGRES, OF_REDIS, MissingError, cell, interpreter

PASSED, FAILED, NOT_RUN = (Row("a", "", "", status) for status in (0, 1, None))


def test_every_test_that_a_cell_names_is_there() -> None:
    assert [path for path in {*OF_POSTGRES, *OF_REDIS} if not (ROOT / path).is_dir()] == []


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ([PASSED, PASSED], 0),
        ([PASSED, FAILED, NOT_RUN], 1),
        ([PASSED, NOT_RUN], 3),
        ([], 3),
        ([Row("a", "", "no tests ran", 5)], 1),
    ],
)
def test_only_what_was_run_has_passed(rows: list[Row], status: int) -> None:
    assert verdict(rows) == status


def test_what_cannot_be_run_is_a_row_that_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cells, "engine", lambda _major: None)
    assert main(["postgres-14"]) == 3
    assert "NOT RUN" in (said := capsys.readouterr().out)
    assert "no PostgreSQL 14: make engines" in said


def test_a_cell_that_fails_shows_why_and_its_row_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_it.py").write_text("def test_no(): raise ValueError('seen')\ndef test_yes(): ...\n")
    monkeypatch.setattr(matrix, "ROOT", tmp_path)
    monkeypatch.setattr(matrix, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(cells, "OF_POSTGRES", ("test_it.py",))
    assert main(["postgres-18", "-n", "1"]) == 1
    assert "ValueError: seen" in (said := capsys.readouterr().out)
    assert f"Python {'.'.join(map(str, sys.version_info[:3]))}" in said
    assert "FAILED" in said.splitlines()[-1]
    assert "1 failed, 1 passed" in said.splitlines()[-1]


def test_a_python_that_is_only_announced_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    announced = tmp_path / "python3.99"
    announced.write_text("#!/bin/sh\nexit 127\n")
    announced.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(MissingError, match=r"no Python 3\.99: put python3\.99 on PATH"):
        interpreter("3.99")


def test_a_redis_of_another_version_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = tmp_path / "redis-server"
    server.write_text("#!/bin/sh\necho 'Redis server v=6.2.0 sha=0'\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(MissingError, match="no Redis 7"):
        cell("redis-7")


def test_pytest_s_closing_line_and_a_program_s_version_are_read_as_they_are_written() -> None:
    assert CLOSING.findall("....\n3 failed, 867 passed, 2 skipped in 136.20s (0:02:16)\n") == [
        "3 failed, 867 passed, 2 skipped"
    ]
    assert number("Valkey server v=9.1.0 sha=00000000:0 malloc=libc bits=64") == "9.1.0"
    assert number("postgres (PostgreSQL) 14.23") == "14.23"
