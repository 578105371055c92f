"""What counts as a conviction, and that every twin is tried by each of its tests."""

from collections.abc import Callable

import pytest

from tests.twins import __main__ as command
from tests.twins import plugin
from tests.twins.registry import TWINS
from worker.telemetry.log import log_summary

TWIN = "claim without lanes"


def test_every_twin_is_tried_by_each_of_its_tests(request: pytest.FixtureRequest) -> None:
    """Of the files that this run has read: in the whole suite, of all."""
    read = {item.nodeid.partition("::")[0] for item in request.session.items}
    meant = {trial for name in TWINS for trial in plugin.trials(name) if trial.partition("::")[0] in read}
    if not request.config.getoption("--twin"):
        assert meant - request.config.stash[plugin.TRIED] == set()


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


def noticed_nothing() -> None:
    pass


def lacks_a_program() -> None:
    pytest.skip("no PgBouncer")


def report_of(call: pytest.CallInfo[None], request: pytest.FixtureRequest) -> pytest.TestReport:
    """Return what the plugin makes of a test that ended so on a twin."""
    report = pytest.TestReport.from_item_and_call(request.node, call)
    plugin.judge(TWIN, report, call)
    return report


@pytest.mark.parametrize(
    ("happens", "outcome"),
    [
        (found_wrong, "passed"),
        (not_raised, "passed"),
        (timed_out, "failed"),
        (waited_in_vain, "failed"),
        (broken_in_the_product, "failed"),
        (noticed_nothing, "failed"),
        (lacks_a_program, "skipped"),
    ],
)
def test_only_an_assertion_of_a_test_about_the_outcome_convicts(
    happens: Callable[[], None], outcome: str, request: pytest.FixtureRequest
) -> None:
    report = report_of(pytest.CallInfo.from_call(happens, "call"), request)
    assert report.outcome == outcome
    assert outcome != "failed" or TWIN in str(report.longrepr)


@pytest.mark.parametrize("when", ["setup", "teardown"])
def test_what_happens_before_or_after_a_test_convicts_nobody(
    when: str, request: pytest.FixtureRequest
) -> None:
    call = pytest.CallInfo.from_call(found_wrong, when)  # type: ignore[arg-type]
    assert not plugin.is_assertion(call)
    assert report_of(call, request).outcome == ("failed" if when == "setup" else "passed")


def test_twins_can_be_listed_and_one_that_does_not_exist_is_wrong_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed and twin.tests[0] in listed for name, twin in TWINS.items())
    with pytest.raises(SystemExit) as ended:
        command.main(["no such twin"])
    assert ended.value.code == 2
