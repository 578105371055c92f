"""What a list shows is, byte for byte, what a model made of it that checks and converts each value."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import asyncpg
import httpx
from pydantic import BeforeValidator, TypeAdapter

from api.collection_models import ListedCollection
from api.gate.echo import echoable
from shared.stored import json_of
from tests.api.clients import ALL, OWNER, P1

TIMES = [
    None, "infinity", "-infinity", "2025-10-02 10:11:12Z", "2025-10-02 10:11:12.3Z",
    "2025-10-02 10:11:12.34Z",
    "2025-10-02 10:11:12.345Z", "2025-10-02 10:11:12.3456Z", "2025-10-02 10:11:12.34567Z",
    "2025-10-02 10:11:12.345678Z", "2025-10-02 10:11:12.000001Z", "0001-01-01 00:00Z",
    "9999-12-31 23:59:59.999999Z", "10000-01-01 00:00Z", "294276-12-31 23:59:59.1234Z",
    "0001-12-31 00:00:00.1Z BC", "0044-03-15 12:00Z BC", "4713-11-24 00:00:00.1234Z BC",
]  # fmt: skip
LINKED = [
    None, "null", "[]", " [ ]", "0", "false", '""', "{}", '"text"', "[null]", "[1e2, 1.50, -0.0, 1e999]",
    '["a"]', '["a","b"]', '["a", "b"]', '["a" , "b"]', '["a",  "b"]', '["a", 1]', '["a", ["b"]]', '["ä€😀"]',
    r'["\u00e4\"\\\/\b\n"]', r'["\ud800", "\udc00\ud800"]', r'["\u0000"]', '["a\u2028b, c"]', '["a]", "[b"]',
    '["a", "b", "a"]', '[""]', '["_-09azAZ"]', '{"k": ["\u007f"], "k": 2}', f"[{'1' * 5_000}]",
    "[12345678901234567890]", "[" * 60 + "]" * 60,
]  # fmt: skip
TEXTS = ["plain", '"\\/\b\f\n\r\t\x01\x1f\x7f', "\u2028\u2029ä€😀\ufffd", "general", ""]
PURPOSES = [None, "", "general", "hypothesis_support", " "]
FLAGS = [None, True, False]
INSERT = """
    INSERT INTO collections (
        collection_id, project_id, collection_name, description, created_by, is_active, created_at,
        updated_at, linked_hypothesis_ids, linked_question_ids, collection_purpose, auto_update, color, icon,
        sort_order
    )
    VALUES ($1, $2::text, $3::text, $4::text, (SELECT owner_user_id FROM projects WHERE project_id = $2),
        true, $5::text::timestamptz, $6::text::timestamptz, $7::text::json, $8::text::json, $9, $10, $4::text,
        $3::text, $11)
"""
STORED = """
    SELECT collection_id, collection_name, description, created_by,
        to_json(created_at) #>> '{}' AS created_at, to_json(updated_at) #>> '{}' AS updated_at, color, icon,
        sort_order, 0 AS article_count, linked_hypothesis_ids::text, linked_question_ids::text,
        collection_purpose, auto_update
    FROM collections
    WHERE project_id = $1
    ORDER BY collections.created_at, collection_id
"""


def time_of(stored: str | None) -> str | None:
    try:
        return None if stored is None else datetime.fromisoformat(stored).isoformat()
    except ValueError:
        return stored


Time = Annotated[str | None, BeforeValidator(time_of)]
Linked = Annotated[Any, BeforeValidator(lambda stored: echoable(json_of(stored) or []))]


class Checked(ListedCollection):
    """The model, which takes each value as it is stored."""

    created_at: Time
    updated_at: Time
    linked_hypothesis_ids: Linked
    linked_question_ids: Linked
    collection_purpose: Annotated[str, BeforeValidator(lambda stored: stored or "general")]
    auto_update: Annotated[bool, BeforeValidator(bool)]


CHECKED = TypeAdapter(list[Checked])


def of(values: Sequence[object], number: int) -> object:
    return values[number % len(values)]


async def test_whatever_is_stored_is_shown_as_a_model_shows_it_that_checks_each_value(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    await seeded.execute("SET TIME ZONE 'UTC'")
    await seeded.execute("DELETE FROM article_collections")
    await seeded.execute("DELETE FROM collections")
    for number in range(2 * max(len(TIMES), len(LINKED))):
        name, text = of(TEXTS, number), of([None, *TEXTS], number)
        await seeded.execute(
            INSERT, f"c{number}", P1, name, text, of(TIMES, number), of(TIMES, number // 2),
            of(LINKED, number), of(LINKED, number // 2), of(PURPOSES, number), of(FLAGS, number),
            of([None, 0, -1, 2**31 - 1], number),
        )  # fmt: skip
    stored = [dict(row) for row in await seeded.fetch(STORED, P1)]
    answer = await client.get(ALL, headers=OWNER)
    assert answer.status_code == 200
    assert answer.content == CHECKED.dump_json(CHECKED.validate_python(stored))
