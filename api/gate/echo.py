"""Showing a client its own input again, whatever it was."""

import json
import math
import re

DEEPEST = 50  # levels; deeper input is cut, so that no nesting exhausts the encoder
CUT = "…"
SURROGATES = re.compile("[\ud800-\udfff]")


def echoable(value: object, levels: int = DEEPEST) -> object:
    """Return JSON that every encoder takes, the same as the value where the value is such JSON.

    Lone surrogates and bytes that are not UTF-8 become U+FFFD, NaN and the infinities their names,
    whatever lies below the deepest level `…`.
    """
    match value:
        case dict() | list() | tuple() if levels == 0:
            return CUT
        case dict():
            return {str(echoable_scalar(key)): echoable(item, levels - 1) for key, item in value.items()}
        case list() | tuple():
            return [echoable(item, levels - 1) for item in value]
        case _:
            return echoable_scalar(value)


def echoable_scalar(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return SURROGATES.sub("\ufffd", str(value))
