"""Pieces of Markdown, as the pages need them that are made from the code."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

MADE = "<!-- Made from the code by `python -m deploy.docs`; what is changed here is lost. -->"
MADE_BELOW = "<!-- What follows is made from the code by `python -m deploy.docs`. -->"

Schema = dict[str, Any]  # a JSON schema


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a cell may hold any text but a line break of its own, which becomes a space."""
    lines = [_row(heads), "|" + "---|" * len(heads), *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


def code(text: object) -> str:
    return f"`{text}`"


def page(title: str, *parts: str) -> str:
    """Return a page: its title, the mark of what is made, and the parts with a line between them."""
    return "\n\n".join([f"# {title}", MADE, *(part for part in parts if part)]) + "\n"


def shape(schema: Schema) -> str:
    """Return in a few words which values a JSON schema takes; a named one is linked within the page."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(shape(choice) for choice in schema["anyOf"])
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else ()):
        return ", ".join(code(_as_json(value)) for value in choices)
    if schema.get("type") == "array":
        return f"list of {shape(schema['items'])}{_bounds(schema)}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {shape(schema['additionalProperties'])}"
    kind: str = schema.get("type", "anything")
    return KINDS.get(schema.get("format", ""), kind) + _bounds(schema)


KINDS = {
    "date-time": "time, ISO 8601",
    "password": "secret",
    "path": "path",
}
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "`{}`",
}


def _bounds(schema: Schema) -> str:
    given = {name: _plain(schema[name]) for name in BOUNDS if name in schema}
    return "".join(", " + BOUNDS[name].format(bound) for name, bound in given.items())


def _plain(bound: object) -> object:
    """Write a whole number without a point; the document has them as floats."""
    return f"{bound:.0f}" if isinstance(bound, float) and bound.is_integer() else bound


def _as_json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def default(value: object) -> str:
    """Return a default as it would be written in the environment or in JSON; none is no text."""
    return "" if value is None else code(_as_json(value))
