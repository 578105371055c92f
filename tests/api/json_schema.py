"""As much of JSON Schema as our OpenAPI document uses; any other keyword is an error, not ignored."""

import re
from collections.abc import Callable, Iterator
from datetime import datetime

from tests.api.recording import Json

TYPES = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}
CHECKS: dict[str, Callable[[Json, Json], bool]] = {
    "type": lambda name, value: type(value) is TYPES[name],
    "required": lambda names, value: set(names) <= value.keys(),
    "const": lambda constant, value: bool(value == constant),
    "enum": lambda values, value: value in values,
    "minLength": lambda length, value: len(value) >= length,
    "maxLength": lambda length, value: len(value) <= length,
    "minimum": lambda least, value: value >= least,
    "maximum": lambda most, value: value <= most,
    "exclusiveMinimum": lambda bound, value: value > bound,
    "exclusiveMaximum": lambda bound, value: value < bound,
    "pattern": lambda pattern, value: re.search(pattern, value) is not None,
    "format": lambda name, value: name == "date-time" and datetime.fromisoformat(value).tzinfo is not None,
}
DESCENDING = {"$ref", "anyOf", "properties", "additionalProperties", "items"}
ANNOTATIONS = {"title", "description", "default", "examples"}


def violations(document: Json, schema: Json, value: Json, where: str = "$") -> Iterator[str]:
    """Say where the value does not follow the schema, which may refer to the document's components."""
    assert schema.keys() <= CHECKS.keys() | DESCENDING | ANNOTATIONS
    if "type" in schema and not CHECKS["type"](schema["type"], value):
        yield f"{where}: {value!r} is not of type {schema['type']!r}"
        return
    for keyword in schema.keys() & CHECKS.keys():
        if not CHECKS[keyword](schema[keyword], value):
            yield f"{where}: {value!r} is not {keyword} {schema[keyword]!r}"
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        yield from violations(document, document["components"]["schemas"][name], value, where)
    options = schema.get("anyOf", [])
    if options and all(list(violations(document, option, value, where)) for option in options):
        yield f"{where}: {value!r} is none of the alternatives"
    for part_schema, part, place in parts(schema, value):
        yield from violations(document, part_schema, part, f"{where}{place}")


def parts(schema: Json, value: Json) -> Iterator[tuple[Json, Json, str]]:
    """Yield the parts of a list or an object, each with its schema and its place."""
    if isinstance(value, list):
        yield from ((schema.get("items", {}), item, f"[{index}]") for index, item in enumerate(value))
    if isinstance(value, dict):
        others = schema.get("additionalProperties", {})
        known = schema.get("properties", {})
        for name, item in value.items():
            part_schema = known.get(name, others)
            yield ({} if part_schema is True else part_schema), item, f".{name}"
