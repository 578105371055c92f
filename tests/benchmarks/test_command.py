"""The command: what it takes, writes and exits with. Its cases are made up here; the real ones are smoked."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as command
from benchmarks.bench import Scale
from benchmarks.figures import Measured
from deploy.local.errors import LocalError
from tests.benchmarks.measured import APART, MET, MISSED, measured

Outcome = Measured | LocalError
Command = Callable[..., int]


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch) -> Command:
    def run(*arguments: str, outcome: Outcome) -> int:
        def measure(_chosen: Sequence[str], _scale: Scale) -> tuple[list[Measured], dict[str, str]]:
            if isinstance(outcome, LocalError):
                raise outcome
            return [outcome], {"cores": "2"}

        monkeypatch.setattr(command, "run", measure)
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        return command.main()

    return run


def test_when_every_target_is_met_the_status_is_0(
    run_command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(outcome=measured(MET, APART)) == 0
    assert "MISSED" not in capsys.readouterr().out


def test_a_missed_target_is_told_and_the_status_is_1(
    run_command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(outcome=measured(MET, MISSED)) == 1
    assert "MISSED ours & theirs >= 0.95 x bare <SQL>: 0.9" in capsys.readouterr().out


def test_the_scale_small_judges_no_target(run_command: Command) -> None:
    assert run_command("--scale", "small", outcome=measured(MET, MISSED)) == 0


def test_work_that_was_not_done_right_gives_no_figure_and_the_status_2(
    run_command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(outcome=LocalError("Not so: every row is right.")) == 2
    assert capsys.readouterr() == ("", "Not so: every row is right.\n")


def test_an_unknown_case_is_told_with_those_there_are_and_the_status_is_2(
    run_command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command("no_such_case", outcome=measured())
    assert ended.value.code == 2
    assert (
        f"there is no case no_such_case; there are: {', '.join(command.names())}" in capsys.readouterr().err
    )


def test_json_and_page_are_written_where_one_says(
    run_command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, page = tmp_path / "bench.json", tmp_path / "bench.html"
    run_command("--json", str(table), "--page", str(page), outcome=measured())
    told = json.loads(table.read_text(encoding="utf-8"))
    assert told == {"environment": {"cores": "2"}, "cases": [measured().as_json()]}
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert capsys.readouterr().out.endswith(f"written: {table}, {page}\n")


def test_what_only_makes_sense_in_full_is_measured_there_or_when_one_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cases = {"drain": SimpleNamespace(__doc__="Drain."), "peers": SimpleNamespace(FROM_SCALE=Scale.FULL)}
    chosen: list[list[str]] = []

    def measure(names: Sequence[str], _scale: Scale) -> tuple[list[Measured], dict[str, str]]:
        chosen.append(list(names))
        return [], {}

    monkeypatch.setattr(command, "names", lambda: list(cases))
    monkeypatch.setattr(command, "load", cases.__getitem__)
    monkeypatch.setattr(command, "run", measure)
    for arguments in ([], ["--scale", "full"], ["peers"]):
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        assert command.main() == 0
    assert chosen == [["drain"], ["drain", "peers"], ["peers"]]
