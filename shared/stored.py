"""What others stored, as far as Python can hold it.

PostgreSQL stores times before the year 1 and after the year 9999, infinity, numbers of any length and JSON
nested by thousands. Where Python has no such value, the text takes its place.
"""

import json
import sys
from datetime import datetime
from typing import Any


def _number(digits: str) -> int | str:
    return int(digits) if len(digits) <= sys.get_int_max_str_digits() else digits


DECODER = json.JSONDecoder(parse_int=_number)
# With six digits of a second, or with none, as Python writes them. What it cannot hold stays as it is anyway.
AS_PYTHON_WRITES = {len("2025-10-02T10:11:12.345678+00:00"), len("2025-10-02T10:11:12+00:00")}


def json_of(text: str | None) -> Any:  # noqa: ANN401 - any JSON
    """Return the JSON that this text is; too long a number as its digits, what is too deep as the text."""
    if text is None:
        return None
    try:
        return DECODER.decode(text)
    except RecursionError:
        return text


def iso_of(time: str | None) -> str | None:
    """Return a time, from PostgreSQL's `to_json`, as Python writes it: six digits of a second or none."""
    if time is None or len(time) in AS_PYTHON_WRITES:
        return time
    try:
        return datetime.fromisoformat(time).isoformat()
    except ValueError:
        return time
