"""Lines made from the log contract: every event, with every word that its fields name, and every null."""

import re
from collections.abc import Iterator
from typing import Any

from shared.log_contract import CONTRACT, SCHEMA_VERSION, Field, LogEvent, problems

WORDS = re.compile(r"`([a-z_]+)`")
EMPTY: dict[str, Any] = {"integer": 7, "number": 7.5, "boolean": True, "object": {"3": 1}, "array": ["x"]}


def sample_lines(timestamp: str) -> Iterator[dict[str, Any]]:
    """Yield lines of that time, each as the contract wants it."""
    for event in CONTRACT.values():
        words = {name: WORDS.findall(field.meaning) or ["some"] for name, field in event.fields.items()}
        turns = max((len(choice) for choice in words.values()), default=1)
        for turn in range(max(turns, len(event.levels))):
            for nulls in (False, True):
                own = {
                    name: value(field, words[name][turn % len(words[name])], nulls=nulls)
                    for name, field in event.fields.items()
                }
                yield checked(event, timestamp, event.levels[turn % len(event.levels)], own)


def value(field: Field, word: str, *, nulls: bool) -> object:
    if nulls and field.nullable:
        return None
    return word if field.type == "string" else EMPTY[field.type]


def checked(event: LogEvent, timestamp: str, level: str, own: dict[str, object]) -> dict[str, Any]:
    process = event.writers.split(", ")[0].replace("all", "worker")
    common = {"timestamp": timestamp, "level": level, "event": event.name, "process": process}
    line = {**common, "schema_version": SCHEMA_VERSION, **own}
    assert problems(line) == [], event.name
    return line
