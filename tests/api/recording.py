"""The legacy service's recorded behaviour: its seed, its steps, and how to compare an answer with them."""

import json
import re
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg

Json = Any  # of any shape

RECORDED = json.loads((Path(__file__).parent.parent / "recorded_requests.json").read_text(encoding="utf-8"))
NAMES: dict[str, str] = RECORDED["vars"]
STEPS: list[dict[str, Any]] = RECORDED["steps"]

VARIABLE = re.compile(r"\{([A-Z0-9_]+)\}")
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00")
PROFILE = ("first_name", "last_name", "category", "role", "institution", "subject_area", "how_heard_about_us")
SEEDED_TABLES = (
    "users",
    "projects",
    "project_collaborators",
    "collections",
    "article_collections",
    "project_collections",
)


async def seed(sql: asyncpg.Connection) -> None:
    """Insert the rows that were there when the recording began."""
    for table in SEEDED_TABLES:
        rows = RECORDED["seed"][table]
        if table == "users":
            rows = [dict.fromkeys(PROFILE, "any") | row for row in rows]
        columns = ", ".join(rows[0])
        await sql.execute(
            f"INSERT INTO {table} ({columns}) "  # noqa: S608 - names from the recording
            f"SELECT {columns} FROM json_populate_recordset(NULL::{table}, $1::json)",
            json.dumps(rows),
        )


def resolve(value: Json, names: dict[str, str]) -> Json:
    """Put ids and addresses in the place of their names."""
    match value:
        case str():
            return VARIABLE.sub(lambda found: names.get(found[1], found[0]), value)
        case list():
            return [resolve(item, names) for item in value]
        case dict():
            return {key: resolve(item, names) for key, item in value.items()}
        case _:
            return value


def differences(expected: Json, actual: Json, where: str = "$") -> Iterator[str]:
    """Say where the actual JSON is not the expected one: keys and their order, timestamps, values."""
    match expected, actual:
        case dict(), dict():
            if list(actual) != list(expected):
                yield f"{where}: keys {list(actual)} instead of {list(expected)}"
            for key in expected.keys() & actual.keys():
                yield from differences(expected[key], actual[key], f"{where}.{key}")
        case list(), list() if len(actual) == len(expected):
            for index, (left, right) in enumerate(zip(expected, actual, strict=True)):
                yield from differences(left, right, f"{where}[{index}]")
        case "<timestamp>", str() if TIMESTAMP.fullmatch(actual):
            return
        case _:
            if expected != actual or type(expected) is not type(actual):
                yield f"{where}: {actual!r} instead of {expected!r}"


def is_uuid4(value: Json) -> bool:
    """Say whether the value is a uuid4 in its canonical form."""
    try:
        parsed = uuid.UUID(value)
    except (TypeError, ValueError, AttributeError):
        return False
    return parsed.version == 4 and str(parsed) == value


def holds(relation: str, collection: dict[str, Any]) -> bool:
    """Say whether a recorded relation between the timestamps holds."""
    updated_at, operator, created_at = relation.split()
    left, right = (datetime.fromisoformat(collection[name]) for name in (updated_at, created_at))
    return left > right if operator == ">" else left == right
