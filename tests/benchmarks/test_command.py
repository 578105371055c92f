"""The command: what it takes, tells, writes and exits with. Its cases are made up here."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as command
from benchmarks.bench import Scale
from benchmarks.figures import Measured
from deploy.local.errors import LocalError
from tests.benchmarks.measured import APART, MET, MISSED, measured

Command = Callable[..., int]

WRONG = LocalError("Not so: every row is right.")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command on cases that measure, or raise, what one says."""

    def run(*arguments: str, **outcomes: Measured | Exception) -> int:
        async def measure(name: str, *_: object) -> tuple[Measured, dict[str, str]]:
            outcome = outcomes[name]
            if isinstance(outcome, Exception):
                raise outcome
            return outcome, {"cores": "2"}

        monkeypatch.setattr(command, "names", lambda: list(outcomes))
        monkeypatch.setattr(command, "load", lambda _: SimpleNamespace(__doc__="A case."))
        monkeypatch.setattr(command, "measure", measure)
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        return command.main()

    return run


def test_when_every_target_is_met_the_status_is_0(bench: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(drain=measured(MET, APART)) == 0
    assert "MISSED" not in capsys.readouterr().out


def test_a_missed_target_is_told_and_the_status_is_1(
    bench: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(drain=measured(MET, MISSED)) == 1
    assert "MISSED ours & theirs >= 0.95 x bare <SQL>: 0.9" in capsys.readouterr().out


def test_the_scale_small_judges_no_target(bench: Command) -> None:
    assert bench("--scale", "small", drain=measured(MET, MISSED)) == 0


@pytest.mark.parametrize("fault", [WRONG, ZeroDivisionError("a fault of ours")])
def test_a_case_that_fails_has_no_figures_and_spoils_no_other_one_s_and_the_status_is_2(
    fault: Exception, bench: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("--json", str(tmp_path / "json"), "--page", str(tmp_path / "page"))
    assert bench(*files, audit=measured(MET), burst=fault, drain=measured(APART)) == 2
    out, err = capsys.readouterr()
    assert out.count("drain  (12 s") == 2
    assert str(fault) in err
    assert err.endswith("not measured: burst\n")
    told = json.loads((tmp_path / "json").read_text(encoding="utf-8"))
    assert (len(told["cases"]), told["not_measured"]) == (2, ["burst"])
    page = (tmp_path / "page").read_text(encoding="utf-8")
    assert "Not measured: burst." in page
    assert 'class="verdict bad"' in page


def test_an_unknown_case_is_told_with_those_there_are_and_the_status_is_2(
    bench: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        bench("no_such_case", drain=measured(), burst=measured())
    assert ended.value.code == 2
    assert "there is no case no_such_case; there are: drain, burst" in capsys.readouterr().err


def test_json_and_page_are_written_where_one_says(
    bench: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, page = tmp_path / "bench.json", tmp_path / "bench.html"
    bench("--json", str(table), "--page", str(page), drain=measured())
    told = json.loads(table.read_text(encoding="utf-8"))
    assert told == {"environment": {"cores": "2"}, "cases": [measured().as_json()], "not_measured": []}
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert capsys.readouterr().out.endswith(f"written: {table}, {page}\n")


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [([], ["drain"]), (["--scale", "full"], ["drain", "peers"]), (["peers"], ["peers"])],
)
def test_what_only_makes_sense_in_full_is_measured_there_or_when_one_names_it(
    arguments: list[str], chosen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = {"drain": SimpleNamespace(__doc__="It."), "peers": SimpleNamespace(FROM_SCALE=Scale.FULL)}
    asked: list[str] = []

    def run(names: list[str], _scale: Scale) -> tuple[list[Measured], dict[str, str], list[str]]:
        asked.extend(names)
        return [], {}, []

    monkeypatch.setattr(command, "names", lambda: list(cases))
    monkeypatch.setattr(command, "load", cases.__getitem__)
    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    assert command.main() == 0
    assert asked == chosen
