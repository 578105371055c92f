"""How a line of the log is declared: its name, who writes it, at which levels, and its fields.

Meanings that several kinds of line share are said here once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOG_VERSION = 2  # raised when a field goes, or changes its meaning

TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a line: a type of JSON, whether it may be null or absent, its meaning and unit."""

    type: str
    meaning: str
    nullable: bool = False
    optional: bool = False

    def accepts(self, value: object) -> bool:
        """Return whether the value has the field's type."""
        if value is None:
            return self.nullable
        if isinstance(value, bool):
            return self.type == "boolean"
        return isinstance(value, TYPES[self.type])


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One kind of line: its fixed name, who writes it, at which levels, and its fields by name."""

    name: str
    writers: str
    levels: tuple[str, ...]
    meaning: str
    fields: Mapping[str, Field]

    def problems(self, line: Mapping[str, Any]) -> list[str]:
        """Return in which ways the line is not one of these."""
        own = {name: value for name, value in line.items() if name not in COMMON}
        problems = [f"unknown field {name}" for name in own if name not in self.fields]
        problems += [
            f"no field {name}"
            for name, field in self.fields.items()
            if not field.optional and name not in own
        ]
        problems += [
            f"{name} is {value!r}, not {self.fields[name].type}"
            for name, value in own.items()
            if name in self.fields and not self.fields[name].accepts(value)
        ]
        if line.get("level") not in self.levels:
            problems.append(f"level is {line.get('level')}, not {' or '.join(self.levels)}")
        return problems


def field(text: str) -> Field:
    """Declare a field as `event` does."""
    kind, _, meaning = text.partition(": ")
    return Field(kind.rstrip("?~"), meaning, nullable="?" in kind, optional="~" in kind)


def event(name: str, writers: str, levels: str, meaning: str, /, **fields: str) -> LogEvent:
    """Declare a line. A field is "type: meaning"; after the type, `?` is "or null", `~` "may be absent"."""
    return LogEvent(
        name, writers, tuple(levels.split()), meaning, {key: field(text) for key, text in fields.items()}
    )


COMMON = {
    "timestamp": field("string: UTC, ISO 8601, `Z`, microseconds; the process's own clock"),
    "level": field("string: `info`, `warning`, `error` or `critical`; error: an operator has to act"),
    "event": field("string: one of the names below, never anything that varies"),
    "process": field("string: `api`, `worker`, or the command's name"),
    "schema_version": field(f"integer: of this contract: {LOG_VERSION}"),
}

ERROR = "string: the kind of error; never a message that quotes what users wrote"
SQLSTATE = "string?: PostgreSQL's code, where it has one"
TRACE = "string~: 32 hexadecimal digits: the trace of the request, where there is one"
REQUEST = "string~: of the answer's `X-Request-ID`: the client's own, or one that was drawn for it"
AUDIT = "integer: the run: `audit_runs.id`"
COLLECTION = "string: `collections.collection_id`"
PROJECT = "string: the home project"
EVENT_TYPE = (
    "string: `collection.created`, `collection.updated` or `collection.deleted`; another is malformed"
)
LETTER_IDS = "array: the first five hundred of them: `outbox_dead_letters.id`, which is the event's id"
METHOD = "string: of HTTP"
ROUTE = "string: the path's template, without ids; `other` where it is none of the API's"
OUTAGE = {
    "hint": "string~: what Redis refuses, and what to do",
    "times": "integer~: how often it went, where that was oftener than there are lines: two in half a minute",
}
