"""Cases do their work, on few rows; what it measures of them means nothing."""

import json
import math

import pytest

from benchmarks.__main__ import load, names, run
from benchmarks.bench import Scale

LONG = {"idle", "latency", "memory", "workers"}  # at any scale: `python -m benchmarks NAME --scale small`
QUICK = {"poison"}
SMOKED = [
    name
    for name in names()
    if name not in LONG and getattr(load(name), "FROM_SCALE", Scale.SMALL) < Scale.FULL
]


@pytest.mark.wide
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.long]) for name in SMOKED]
)
def test_a_case_measures_on_services_of_its_own_and_finds_its_work_done_right(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("DATABASE_URL", "REDIS_URL"):  # the case sets them; afterwards they are as before
        monkeypatch.setenv(variable, "nobody")
    [measured], environment, _ = run([name], Scale.SMALL)
    assert environment["fsync"] == "on"
    assert measured.case == name
    assert measured.figures
    assert len({figure.name for figure in measured.figures}) == len(measured.figures)
    assert all(math.isfinite(sample) for figure in measured.figures for sample in figure.samples)
    json.dumps(measured.as_json(), allow_nan=False)  # every ratio has its pairs


@pytest.mark.parametrize("name", names())
def test_a_case_says_in_a_line_what_it_measures(name: str) -> None:
    first = (load(name).__doc__ or "").splitlines()[0]
    assert first.endswith(".")
