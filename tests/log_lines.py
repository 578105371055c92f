"""The log's lines as tests read them, and hold them against the contract."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shared.logs.contract import problems
from shared.logs.declaring import COMMON

seen: set[str] = set()  # the names of all events that any line of this session had
breaches: list[str] = []  # of the test that runs: the fixture of tests/logs/plugin.py fails it for them


def lines_of(*files: Path) -> list[dict[str, Any]]:
    """Return the lines of the files, one after the other; each must be whole, and JSON."""
    return [json.loads(line) for file in files for line in file.read_bytes().split(b"\n")[:-1]]


def log_lines(printed: Iterable[str]) -> list[dict[str, Any]]:
    """Return the log lines among what a process printed.

    What does not begin as an object is no line of the log; neither is a command's result, which has none of
    the fields that every line has. A last line without an end was cut short with its process.
    """
    objects = (json.loads(line) for line in printed if line.startswith("{") and line.endswith("\n"))
    return [line for line in objects if not COMMON.keys().isdisjoint(line)]


def hold_against_contract(lines: Iterable[Mapping[str, Any]]) -> None:
    """Let the test fail that wrote one of these lines, if it breaks the contract."""
    for line in lines:
        seen.add(line.get("event", ""))
        breaches.extend(f"{problem}: {dict(line)}" for problem in problems(line))


def hold_printed(printed: str) -> None:
    """Do the same with what a process printed."""
    hold_against_contract(log_lines(f"{line}\n" for line in printed.split("\n")[:-1]))
