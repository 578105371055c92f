"""Figures: a ratio is the median of pairs, and every target has a verdict."""

import json

import pytest

from benchmarks.figures import Beside, Figure, Verdict
from benchmarks.table import as_table
from tests.benchmarks.measured import APART, GROWING, MET, MISSED, measured


def test_a_ratio_is_the_median_of_the_pairs_and_not_the_ratio_of_the_medians() -> None:
    case = measured()
    assert case.ratios(MISSED, MISSED.beside[0]) == [0.9, 0.1, 0.9]
    assert case.ratio(MISSED, MISSED.beside[0]) == 0.9
    assert MISSED.median / MET.median == 0.45


def test_figures_with_another_number_of_samples_are_no_pairs() -> None:
    beside = Beside(MET.name)
    with pytest.raises(ValueError, match="argument 2"):
        measured(MET, Figure("p99", "ms", [1.0], [beside])).as_json()


def test_each_target_of_a_median_or_of_a_ratio_has_a_verdict_and_a_bound_itself_is_met() -> None:
    on_the_bound = Figure("memory", "MB", [7.0], at_least=7, at_most=7)
    assert list(measured(MET, MISSED, APART, on_the_bound).verdicts()) == [
        Verdict("bare <SQL> >= 150 rows/s", 200.0, is_met=True),
        Verdict("ours & theirs >= 0.95 x bare <SQL>", 0.9, is_met=False),
        Verdict("p99 <= 15 ms", 3.25, is_met=True),
        Verdict("memory >= 7 MB", 7.0, is_met=True),
        Verdict("memory <= 7 MB", 7.0, is_met=True),
    ]


def test_the_table_tells_medians_spreads_ratios_and_which_targets_were_missed() -> None:
    lines = [" ".join(line.split()) for line in as_table([measured()]).splitlines()]
    assert lines == [
        "drain (12 s: rows 1000)",
        "bare <SQL> 200 rows/s 100 to 400",
        "ours & theirs 90 rows/s 20 to 360 0.900 x bare <SQL>",
        "p99 3.25 ms",
        "met bare <SQL> >= 150 rows/s: 200",
        "MISSED ours & theirs >= 0.95 x bare <SQL>: 0.9",
        "met p99 <= 15 ms: 3.25",
    ]


def test_the_json_holds_every_sample_ratio_setting_and_target() -> None:
    told = json.loads(json.dumps(measured().as_json()))
    assert (told["case"], told["settings"], told["seconds"]) == ("drain", {"rows": 1000}, 12.3)
    assert [figure["samples"] for figure in told["figures"]] == [MET.samples, MISSED.samples, APART.samples]
    assert told["figures"][1]["ratios"] == {MET.name: 0.9}
    assert "rows" not in told["figures"][0]
    assert [(figure["curve"], figure["rows"]) for figure in measured(*GROWING).as_json()["figures"]] == [
        ("log", 10),
        ("log", 100),
    ]
    assert [target["is_met"] for target in told["targets"]] == [True, False, True]
