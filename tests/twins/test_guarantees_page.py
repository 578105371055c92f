"""docs/guarantees.md names tests and twins that exist, and every twin."""

import ast
import re
from typing import NamedTuple

import pytest

from tests.forked import ROOT
from tests.twins.registry import TWINS

PAGE = (ROOT / "docs" / "guarantees.md").read_text()
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ELSEWHERE = "in the test"  # which holds its own wrong variant


class Promise(NamedTuple):
    """A row of the page's table."""

    promise: str
    mechanism: str
    tests: str
    twins: str


def promises() -> list[Promise]:
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    return [Promise(*row) for row in rows if len(row) == len(Promise._fields) and row[0] != "promise"]


def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_test_named_on_the_page_exists() -> None:
    named = TEST.findall(PAGE)
    assert named
    assert [f"{path}::{name}" for path, name in named if name not in functions_of(path)] == []


def test_every_file_and_function_named_as_a_mechanism_exists() -> None:
    for row in promises():
        paths = [word for word in quoted(row.mechanism) if word.endswith((".py", ".sql"))]
        assert paths, row.promise
        text = "\n".join((ROOT / path).read_text() for path in paths)
        missing = [word for word in quoted(row.mechanism) if word not in paths and word not in text]
        assert missing == [], row.promise


@pytest.mark.parametrize("row", promises(), ids=lambda row: row.promise.split("**")[1])
def test_every_promise_has_a_test_and_a_twin_that_the_test_convicts(row: Promise) -> None:
    assert TEST.search(row.tests)
    assert row.twins == ELSEWHERE or quoted(row.twins)
    tests = {f"{path}::{name}" for path, name in TEST.findall(row.tests)}
    for name in quoted(row.twins):
        assert row.promise.startswith(f"**{TWINS[name].promise}**")
        assert {test.partition("[")[0] for test in TWINS[name].tests} <= tests, name


def test_every_twin_is_on_the_page_once() -> None:
    named = [name for row in promises() for name in quoted(row.twins)]
    assert sorted(named) == sorted(TWINS)
