"""What a list shows of each row: the JSON of a `ListedCollection`.

By hand: with the model's validators it took nearly three times as long.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import from_json, to_json

from api.gate.echo import echoable
from shared.stored import iso_of, json_of

TIMES = ("created_at", "updated_at")
LINKED = ("linked_hypothesis_ids", "linked_question_ids")
# As our writes store a list of ids, which can be shown as it is.
IDS = re.compile(r'\[("[\w-]*"(, "[\w-]*")*)?\]', re.ASCII)


def as_json(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the rows as a JSON array; times and linked ids are PostgreSQL's texts, or None."""
    return to_json([_shown(row) for row in rows])


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = dict(row)
    for name in TIMES:
        shown[name] = iso_of(shown[name])
    for name in LINKED:
        shown[name] = _linked(shown[name])
    return shown


def _linked(stored: str | None) -> object:
    """Return the list that is stored; others may have stored any JSON, which is shown as far as it can be."""
    if stored is not None and IDS.fullmatch(stored):
        return from_json(stored)
    return echoable(json_of(stored) or [])
