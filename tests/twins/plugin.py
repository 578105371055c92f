"""A pytest plugin that runs guarantees' tests as they are and with twins in place, and tells them apart.

`pytest -p tests.twins.plugin --twin NAME --twin NAME --twin-report FILE TESTS…`. A twin is convicted by
an assertion of a test of its own about the outcome. A fault anywhere else, a time-out of the harness or
a fixture that breaks convicts nobody.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.twins.registry import TWINS

AS_IT_IS = "as it is"
TESTS = Path(__file__).parent.parent
RUN = "twin"

runs: list[dict[str, Any]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--twin", action="append", default=[], help="a twin to convict; may be repeated")
    parser.addoption("--twins-only", action="store_true", help="run nothing as it is")
    parser.addoption("--twin-report", type=Path, required=True, help="receives what each run showed, as JSON")


@pytest.hookimpl(trylast=True)  # so that the twin comes last in a test's id
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    function = metafunc.definition.nodeid
    wanted = [name for name in metafunc.config.getoption("--twin") if function in cases(name)]
    names = wanted if metafunc.config.getoption("--twins-only") else [AS_IT_IS, *wanted]
    metafunc.parametrize("twin", names, ids=names, indirect=True)


@pytest.fixture(autouse=True)
def twin(request: pytest.FixtureRequest) -> Iterator[None]:
    """Put the twin in place before anything of the test is set up."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param != AS_IT_IS:
            TWINS[request.param].put(patch)
        yield


def cases(name: str) -> dict[str, str]:
    """Return the twin's tests, and of each the case that is meant; empty: all of them."""
    split = (test.rstrip("]").partition("[") for test in TWINS[name].tests)
    return {function: case for function, _, case in split}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the cases that nobody asked for, and begin with the runs without a twin."""
    wanted = [item for item in items if is_wanted(item, config.getoption("--twin"))]
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = sorted(wanted, key=lambda item: twin_of(item) != AS_IT_IS)


def is_wanted(item: pytest.Item, twins: list[str]) -> bool:
    name = twin_of(item)
    function, _, rest = item.nodeid.partition("[")
    case = rest.removesuffix("]").removesuffix(name).removesuffix("-")
    meant = [
        cases(one)[function] for one in (twins if name == AS_IT_IS else [name]) if function in cases(one)
    ]
    return "" in meant or case in meant


def twin_of(item: pytest.Item) -> str:
    assert isinstance(item, pytest.Function)
    return str(item.callspec.params["twin"])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:  # noqa: ANN401 - pytest's
    report: pytest.TestReport = yield
    if report.when == "call" or report.failed:
        report.user_properties.append((RUN, run_of(item, call, report)))
    return report


def run_of(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> dict[str, Any]:
    """Say what the run showed: passed, failed by an assertion of a test, or broken by anything else."""
    reason = "" if call.excinfo is None else f"{call.excinfo.typename}: {call.excinfo.value}"
    return {
        "twin": twin_of(item),
        "test": item.nodeid.partition("[")[0],
        "case": item.nodeid.partition("[")[2].removesuffix("]").removesuffix(twin_of(item)).rstrip("-"),
        "showed": "passed" if report.passed else "failed" if is_assertion(call) else "broken",
        "seconds": round(call.duration, 2),
        "reason": reason.partition("\n")[0][:200],
    }


def is_assertion(call: pytest.CallInfo[None]) -> bool:
    """Say whether a statement of the tests found the outcome wrong; pytest's time-out is none."""
    if call.when != "call" or call.excinfo is None:
        return False
    found_wrong = call.excinfo.errisinstance((AssertionError, pytest.fail.Exception))
    is_timeout = str(call.excinfo.value).startswith("Timeout")
    passed_through = [Path(entry.path) for entry in call.excinfo.traceback]
    raised_in = next(path for path in reversed(passed_through) if "_pytest" not in path.parts)
    return found_wrong and not is_timeout and raised_in.is_relative_to(TESTS)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep what xdist's workers report, too."""
    runs.extend(dict(cast("Any", value)) for name, value in report.user_properties if name == RUN)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        session.config.getoption("--twin-report").write_text(json.dumps(runs))
