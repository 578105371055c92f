"""One line of the log: read, and held against the contract, so that what folds it can trust its types."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from shared.logs.contract import CONTRACT
from shared.logs.declaring import TYPES, LogEvent

LogLine = Mapping[str, Any]

LARGEST: Final = 2**63  # of a number; PostgreSQL has no larger one, and floats take it
EARLIEST: Final = datetime(2020, 1, 1, tzinfo=UTC).timestamp()  # nothing of ours is older
STAMP_LENGTH = len("2026-01-01T00:00:00.000000Z")
BYTE_ORDER_MARK: Final = "\ufeff"  # editors of Windows, and what was put together of several files
_ABSENT: Final = object()


class BrokenLineError(Exception):
    """The line is not JSON, or not a line of ours."""


def is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(constant: str) -> float:
    raise ValueError(constant)


_decode = json.JSONDecoder(parse_constant=_refuse).raw_decode


def parse(text: str) -> dict[str, Any]:
    """Read a line that holds one JSON object and nothing else; raise BrokenLineError otherwise.

    What was no UTF-8 is there as lone surrogates, see `surrogateescape`.
    """
    text = text.removeprefix(BYTE_ORDER_MARK)
    if text[:1] != "{" or not (text.isascii() or is_text(text)):
        raise BrokenLineError
    try:
        line, end = _decode(text)
    except (ValueError, RecursionError):  # ValueError: also an integer of thousands of digits
        raise BrokenLineError from None
    if type(line) is not dict or (end < len(text) and not text[end:].isspace()):
        raise BrokenLineError
    return line


class Stamps:
    """Reads timestamps; quicker when they come in the order of time, as they do."""

    def __init__(self) -> None:
        self._prefix = ""
        self._second = 0.0

    def seconds(self, stamp: object) -> float:
        """Return seconds since 1970 in UTC; raise BrokenLineError for what is no moment of our time."""
        if type(stamp) is not str:
            raise BrokenLineError
        if len(stamp) == STAMP_LENGTH and stamp[:20] == self._prefix and stamp[26] == "Z":
            fraction = stamp[20:26]
            if fraction.isascii() and fraction.isdigit():
                return self._second + int(fraction) / 1e6
        return self._parsed(stamp)

    def _parsed(self, stamp: str) -> float:
        try:
            moment = datetime.fromisoformat(stamp)
        except ValueError:
            raise BrokenLineError from None
        if moment.tzinfo is None or moment.year < 2000:  # noqa: PLR2004 - arithmetic fails near the year 1
            raise BrokenLineError
        seconds = moment.timestamp()
        if seconds < EARLIEST:
            raise BrokenLineError
        if len(stamp) == STAMP_LENGTH and stamp[19] == "." and stamp[26] == "Z":
            self._prefix, self._second = stamp[:20], float(int(seconds))
        return seconds


@dataclass(frozen=True, slots=True)
class Shape:
    """The types that an event's fields must have, made for being asked a million times."""

    kinds: tuple[tuple[str, frozenset[type]], ...]
    counts: tuple[str, ...]
    numbers: tuple[str, ...]

    @classmethod
    def of(cls, event: LogEvent) -> "Shape":
        """Take the types out of the contract; what may be absent may be null as well."""
        kinds = {
            name: frozenset(
                (
                    *TYPES[field.type],
                    *((type(None),) if field.nullable or field.optional else ()),
                    *((type(_ABSENT),) if field.optional else ()),
                )
            )
            for name, field in event.fields.items()
        }
        return cls(
            tuple(kinds.items()),
            tuple(name for name, field in event.fields.items() if field.type == "integer"),
            tuple(name for name, field in event.fields.items() if field.type == "number"),
        )

    def fits(self, line: LogLine) -> bool:
        """Return whether all fields are there with the right types, and integers are not negative."""
        get = line.get
        for name, kinds in self.kinds:
            if type(get(name, _ABSENT)) not in kinds:
                return False
        for name in self.counts:
            if (value := get(name)) is not None and not 0 <= value < LARGEST:
                return False
        for name in self.numbers:
            if (value := get(name)) is not None and not -LARGEST < value < LARGEST:
                return False
        return True


SHAPES: Mapping[str, Shape] = {name: Shape.of(event) for name, event in CONTRACT.items()}


def cut(value: object, length: int) -> str:
    """Return the value's text, cut: what is kept must not grow with what a line holds."""
    try:
        text = value if isinstance(value, str) else json.dumps(value)
    except RecursionError:
        text = "…"
    return text if len(text) <= length else f"{text[: length - 1]}…"
