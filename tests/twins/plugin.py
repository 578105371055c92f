"""A pytest plugin that runs each guarantee's tests on its broken twins as well, on which they must fail.

To a test that the registry names, a run with each of its twins is added, with the mark `twin`. It passes
when the twin is convicted: by an assertion of the test about the outcome. A fault anywhere else, a time-out
or a fixture that breaks convicts nobody, and a test that is skipped is skipped with its twins.
"""

import gc
import sys
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import pytest

from tests.twins.registry import TWINS

TESTS = Path(__file__).parent.parent
TRIED = pytest.StashKey[AbstractSet[object]]()
TWIN = "twin"
IGNORED_GARBAGE = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
Case = tuple[str, str]  # the node id of a test's function, and what its brackets hold, the twin left out

verdicts: dict[str, str] = {}  # passed, failed or skipped: of each trial of a twin, by its node id
CASES: dict[Case, list[str]] = {}
for name, twin in TWINS.items():
    for test in twin.tests:
        function, _, case = test.removesuffix("]").partition("[")
        CASES.setdefault((function, case), []).append(name)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "twin: a test run on a broken twin, which it must convict")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--twin",
        action="append",
        default=[],
        help="only the tests of this twin, as they are and with it in place; may be repeated",
    )


@pytest.hookimpl(trylast=True)  # so that the twin comes last in a test's id
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    of_function = [names for (function, _), names in CASES.items() if function == metafunc.definition.nodeid]
    names = dict.fromkeys(name for names in of_function for name in names)
    if names:
        runs = [pytest.param(None, id=pytest.HIDDEN_PARAM)]
        runs += [pytest.param(name, id=name, marks=[pytest.mark.twin, IGNORED_GARBAGE]) for name in names]
        metafunc.parametrize("_twin", runs, indirect=True)


@pytest.fixture(autouse=True)
def _twin(request: pytest.FixtureRequest) -> Iterator[None]:
    """Put the twin in place before anything of the test is set up."""
    name = getattr(request, "param", None)
    with pytest.MonkeyPatch.context() as patch:
        if name is not None:
            TWINS[name].put(patch)
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the cases on which no twin is tried, and what `--twin` does not ask for."""
    asked = config.getoption("--twin")
    left_out = [item for item in items if not is_wanted(item, asked)]
    config.stash[TRIED] = {item.nodeid for item in items if twin_of(item)} - {
        item.nodeid for item in left_out
    }
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def trials(name: str) -> list[str]:
    """Return the node ids under which the tests of this twin are tried on it."""
    split = (test.removesuffix("]").partition("[") for test in TWINS[name].tests)
    return [f"{function}[{case}-{name}]" if case else f"{function}[{name}]" for function, _, case in split]


def is_wanted(item: pytest.Item, asked: list[str]) -> bool:
    name = twin_of(item)
    twins = CASES.get(case_of(item), [])
    if name is None:
        return not asked or any(twin in asked for twin in twins)
    return name in twins and (not asked or name in asked)


def twin_of(item: pytest.Item) -> str | None:
    """Return the name of the twin that is in place while this runs."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("_twin") if callspec else None


def case_of(item: pytest.Item) -> Case:
    function, _, rest = item.nodeid.partition("[")
    return function, rest.removesuffix("]").removesuffix(twin_of(item) or "").removesuffix("-")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:  # noqa: ANN401 - pytest's
    report: pytest.TestReport = yield
    if (name := twin_of(item)) is not None:
        report.user_properties.append((TWIN, name))
        judge(name, report, call)
    return report


def judge(name: str, report: pytest.TestReport, call: pytest.CallInfo[None]) -> None:
    """Turn what a test showed of a twin into what it shows of the test."""
    if report.skipped or (report.when == "setup" and report.passed):
        return
    if report.when == "teardown" or is_assertion(call):
        report.outcome = "passed"
        report.longrepr = None
    elif report.passed:
        report.outcome = "failed"
        report.longrepr = f"the test does not notice the twin {name!r}, which breaks: {TWINS[name].promise}"
    else:
        report.longrepr = f"the twin {name!r} is broken, not convicted:\n{report.longrepr}"


def is_assertion(call: pytest.CallInfo[None]) -> bool:
    """Return whether a statement of the tests found the outcome wrong; pytest's time-out is none."""
    if call.when != "call" or call.excinfo is None:
        return False
    found_wrong = call.excinfo.errisinstance((AssertionError, pytest.fail.Exception))
    is_timeout = str(call.excinfo.value).startswith("Timeout")
    passed_through = [Path(entry.path) for entry in call.excinfo.traceback]
    raised_in = next(path for path in reversed(passed_through) if "_pytest" not in path.parts)
    return found_wrong and not is_timeout and raised_in.is_relative_to(TESTS)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:  # noqa: ANN401 - pytest's
    """Clear away what a convicted test left behind, lest a later test is blamed for it."""
    done = yield
    if twin_of(item) is not None:
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):  # hold the test's frames
            vars(sys).pop(name, None)
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            gc.collect()
        finally:
            sys.unraisablehook = hook
    return done


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep what became of each trial, be it one of xdist's workers that reports it."""
    if TWIN in dict(report.user_properties) and (report.when == "call" or not report.passed):
        verdicts[report.nodeid] = report.outcome


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many of the twins that were tried each of their tests has convicted."""
    tried = [name for name in TWINS if any(trial in verdicts for trial in trials(name))]
    convicted = [name for name in tried if all(verdicts.get(trial) == "passed" for trial in trials(name))]
    if tried:
        terminalreporter.write_line(
            f"{len(convicted)} of {len(tried)} twins convicted by every test of theirs"
        )
