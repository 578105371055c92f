"""A pytest plugin that holds every line of every test against the contract.

A test fails for a line that breaks it, whether a process of the product wrote it or the test's own process.
The whole suite fails for an event of the contract that no test had anybody write.
"""

import json
from collections.abc import Iterator
from functools import partialmethod

import pytest
import structlog

from shared.logs.contract import CONTRACT
from shared.logs.setup import LineWriter
from tests.log_lines import breaches, hold_against_contract, seen

WHOLE_SUITE = "not wide and not long and not debezium and not image"  # as in pyproject.toml
NEVER_SEEN = pytest.StashKey[list[str]]()
line_of = LineWriter("test", [])


class HeldLogger(structlog.BoundLoggerBase):
    """What `structlog.get_logger()` makes in tests: it holds each event against the contract first.

    It is no processor, because `capture_logs` takes those away.
    """

    def log_at(self, level: str, event: str, **fields: object) -> object:
        """Log an event of the product at a level of the contract."""
        line = line_of(None, level, {**self._context, **fields, "event": event})
        hold_against_contract([json.loads(line)])
        return self._proxy_to_logger(level, event, **fields)

    info = partialmethod(log_at, "info")
    warning = partialmethod(log_at, "warning")
    error = partialmethod(log_at, "error")
    critical = partialmethod(log_at, "critical")


@pytest.fixture(autouse=True)
def _held_against_contract() -> Iterator[None]:
    structlog.configure(wrapper_class=HeldLogger)
    breaches.clear()
    yield
    assert not breaches, "\n".join(breaches[:20])


@pytest.fixture
def counts_as_unseen() -> Iterator[None]:
    """Forget the events of a test that logs what the product should."""
    before = seen.copy()
    yield
    seen.intersection_update(before)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[NEVER_SEEN] = []


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Take over what a worker of pytest-xdist has seen; one that crashed says nothing."""
    seen.update(getattr(node, "workeroutput", {}).get("events", []))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session for events that the whole suite left out."""
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["events"] = sorted(seen)
    elif is_whole(config) and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        config.stash[NEVER_SEEN] = [] if lacks_programs(config) else sorted(CONTRACT.keys() - seen)
        if config.stash[NEVER_SEEN]:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the events that the whole suite left out."""
    for name in config.stash[NEVER_SEEN]:
        terminalreporter.write_line(f"FAILED log contract: no test had {name} written", red=True)


def lacks_programs(config: pytest.Config) -> bool:
    """Return whether tests were skipped for want of a program, which might have seen more."""
    not_tried = config.pluginmanager.get_plugin("tests.programs.not-tried")
    return bool(not_tried and not_tried.programs)


def is_whole(config: pytest.Config) -> bool:
    """Return whether this is the whole suite, but for its long forms."""
    chosen = [config.getoption(name, None) for name in ("keyword", "lf", "deselect", "maxfail", "ignore")]
    from_file = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return from_file and config.getoption("markexpr") == WHOLE_SUITE and not any(chosen)
