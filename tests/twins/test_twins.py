"""Every promise's test fails when its mechanism is taken out; and what counts as failing."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.twins import __main__ as command
from tests.twins.plugin import is_assertion
from tests.twins.registry import TWINS
from worker.batch_log import log_summary


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_twin_is_convicted_by_each_of_its_tests() -> None:
    """The same tests run as they are in the session that runs this one."""
    arguments = [sys.executable, "-m", "tests.twins", "--json", "--twins-only", "-n", "0"]
    ran = subprocess.run(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    verdicts = json.loads(ran.stdout)
    assert {verdict["twin"] for verdict in verdicts} == set(TWINS)
    assert [verdict for verdict in verdicts if verdict["showed"] != "convicted"] == []
    assert ran.returncode == 0


def found_wrong() -> None:
    assert TWINS == {}


def not_raised() -> None:
    with pytest.raises(ValueError, match="expected"):
        pass


def timed_out() -> None:
    pytest.fail("Timeout (>60.0s) from pytest-timeout.")


def waited_in_vain() -> None:
    raise TimeoutError


def broken_in_the_product() -> None:
    log_summary(None, "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("happens", "convicts"),
    [
        (found_wrong, True),
        (not_raised, True),
        (timed_out, False),
        (waited_in_vain, False),
        (broken_in_the_product, False),
        (lambda: None, False),
    ],
)
def test_only_an_assertion_of_a_test_about_the_outcome_convicts(
    happens: Callable[[], None], *, convicts: bool
) -> None:
    assert is_assertion(pytest.CallInfo.from_call(happens, "call")) is convicts
    assert not is_assertion(pytest.CallInfo.from_call(happens, "setup"))


def ran(twin: str, showed: str, test: str) -> dict[str, Any]:
    return {"twin": twin, "test": test, "case": "", "showed": showed, "seconds": 0.1, "reason": "why"}


@pytest.mark.parametrize(
    ("as_it_is", "with_twin", "status"),
    [
        (["passed"], ["failed"], 0),
        (["passed", "passed"], ["passed", "failed"], 0),  # one case of several is enough
        (["passed"], ["passed"], 1),
        (["passed"], ["broken"], 1),
        (["passed"], [], 1),
        (["passed", "failed"], ["failed"], 1),
        ([], ["failed"], 1),
    ],
)
def test_a_twin_that_goes_free_or_a_test_that_fails_as_it_is_ends_with_status_1(
    as_it_is: list[str], with_twin: list[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (test,) = TWINS["claim without lanes"].tests
    runs = [ran(command.AS_IT_IS, showed, test) for showed in as_it_is]
    runs += [ran("claim without lanes", showed, test) for showed in with_twin]
    monkeypatch.setattr(command, "run_pytest", lambda *_: runs)
    assert command.main(["claim without lanes"]) == status


def test_twins_can_be_listed_and_one_that_does_not_exist_is_wrong_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed and twin.tests[0] in listed for name, twin in TWINS.items())
    with pytest.raises(SystemExit) as ended:
        command.main(["no such twin"])
    assert ended.value.code == 2
