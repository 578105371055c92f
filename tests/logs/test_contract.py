"""The contract of the log against the code that logs."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.logs.contract import CONTRACT
from tests.forked import ROOT

LEVELS = {"info", "warning", "error", "critical"}
OTHERS = {"debug", "exception", "log", "msg", "fatal", "warn", "ainfo"}  # none of the contract's
DECLARED = {*(ROOT / "shared" / "logs").glob("*_events.py"), ROOT / "shared" / "logs" / "setup.py"}
SOURCES = [
    path
    for package in ("api", "worker", "shared", "migrations")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path not in DECLARED
]


def methods_of(logger: ast.expr) -> set[str]:
    """Return the names of the methods that this expression may be, if it is a logger's: `log.info if …`."""
    match logger:
        case ast.IfExp():
            return methods_of(logger.body) | methods_of(logger.orelse)
        case ast.Attribute(value=ast.Name(id="logger" | "log"), attr=name):
            return {name}
        case ast.Attribute(value=ast.Attribute(attr="_log" | "_logger"), attr=name):
            return {name}
    return set()


def chosen_in(function: ast.AST) -> dict[str, set[str]]:
    """Return which methods a name of the function may stand for: `log = logger.info if … else …`."""
    return {
        target.id: methods_of(node.value)
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and methods_of(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def calls_in(path: Path) -> Iterator[tuple[set[str], ast.Call]]:
    """Yield each call of a logger, with the levels that it may have."""
    text = path.read_text(encoding="utf-8")
    for function in ast.walk(ast.parse(text)) if "log" in text else ():
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            chosen = chosen_in(function)
            for call in ast.walk(function):
                if isinstance(call, ast.Call):
                    named = chosen.get(call.func.id, set()) if isinstance(call.func, ast.Name) else set()
                    if levels := methods_of(call.func) | named:
                        yield levels - {"bind"}, call


CALLS = [
    pytest.param(levels, call, id=f"{path.relative_to(ROOT)}:{call.lineno}")
    for path in SOURCES
    for levels, call in calls_in(path)
    if levels
]


@pytest.mark.parametrize(("levels", "call"), CALLS)
def test_what_is_logged_is_an_event_of_the_contract_at_one_of_its_levels(
    levels: set[str], call: ast.Call
) -> None:
    assert levels <= LEVELS
    event, *others = call.args
    assert others == []
    if isinstance(event, ast.Constant):  # what varies are the ends of a backfill
        assert levels <= set(CONTRACT[str(event.value)].levels)
        fields = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
        assert fields <= CONTRACT[str(event.value)].fields.keys()


def test_all_places_that_log_were_found() -> None:
    loggers = sum(path.read_text(encoding="utf-8").count("structlog.get_logger(") for path in SOURCES)
    assert len({parameters.id for parameters in CALLS}) > 1.5 * loggers > 20


# Kept for readers that read both during a deploy.
ONLY_OF_THE_RELEASE_BEFORE = {"job_unfinished"}


@pytest.mark.parametrize("event", sorted(CONTRACT.keys() - ONLY_OF_THE_RELEASE_BEFORE))
def test_an_event_of_the_contract_is_named_in_the_code(event: str) -> None:
    sources = [*SOURCES, ROOT / "shared" / "logs" / "setup.py"]
    assert any(f'"{event}"' in path.read_text(encoding="utf-8") for path in sources)
