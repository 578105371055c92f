"""The log's lines as tests read them, and hold them against the contract."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shared.log_contract import COMMON, problems

seen: set[str] = set()  # the names of all events that any line of this session had


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


def breaches(lines: Iterable[dict[str, Any]]) -> list[str]:
    """Say which lines break the contract, and how; remember which events were seen."""
    found = []
    for line in lines:
        seen.add(line.get("event", ""))
        found += [f"{problem}: {line}" for problem in problems(line)]
    return found
