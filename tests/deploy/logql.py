"""The part of LogQL that our dashboards and rules use, read strictly and run on lines of ours.

No Loki runs in the tests. What this does not know it refuses, so that no query gets past it unread.
"""

import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>"(?:[^"\\]|\\.)*"|`[^`]*`)
    | (?P<duration>\[(?:\d+[smhd]|\$__interval|\$__range)\])
    | (?P<number>\d+(?:\.\d+)?)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<symbol>\|=|\|~|!=|!~|=~|==|>=|<=|[{}()|,=<>+\-*/])
    )""",
    re.VERBOSE,
)
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
VARIABLES = {"$__interval": 60, "$__range": 3600}
TIMESTAMP = "`{{ __timestamp__ | unixEpoch }}`"
MATCHES: Mapping[str, Callable[[str, str], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "=~": lambda value, pattern: re.fullmatch(pattern, value) is not None,
    "!~": lambda value, pattern: re.fullmatch(pattern, value) is None,
}
COUNTING = {"count_over_time", "rate", "absent_over_time"}
UNWRAPPING: Mapping[str, Callable[[Sequence[float]], float]] = {
    "sum_over_time": sum,
    "max_over_time": max,
    "min_over_time": min,
    "last_over_time": lambda values: values[-1],
}
AGGREGATES: Mapping[str, Callable[[Iterable[float]], float]] = {
    "sum": sum,
    "max": max,
    "min": min,
    "count": lambda values: float(len(list(values))),
}
COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
STRENGTHS = [{"or"}, {"and", "unless"}, set(COMPARISONS), {"+", "-"}, {"*", "/"}]

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
Expression = Callable[[Sequence["Entry"], float], Vector]
NOBODY: Labels = frozenset()


class UnknownLogQLError(Exception):
    """The query says something that this does not know; Loki might."""


@dataclass(frozen=True)
class Entry:
    """A line as it lies in Loki: the time and the stream's labels that the shipper gave it."""

    at: float
    line: str
    labels: Mapping[str, str]

    @classmethod
    def of(cls, line: Mapping[str, Any], at: float | None = None) -> "Entry":
        when = datetime.fromisoformat(line["timestamp"]).timestamp() if at is None else at
        labels = {"job": "collection-sync", "process": line["process"], "level": line["level"]}
        return cls(when, json.dumps(line), labels)


@dataclass
class Range:
    """A selector with its pipeline: what it takes from which lines."""

    selector: dict[str, tuple[str, str]] = field(default_factory=dict)
    line_filters: list[tuple[str, str]] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)  # label: the line's field
    filters: list[tuple[str, str, str]] = field(default_factory=list)
    stamped: str | None = None  # a label with the line's time
    unwrapped: str | None = None
    seconds: float | None = None

    def take(self, entries: Sequence[Entry], now: float) -> list[tuple[Entry, Labels, float]]:
        """Return the lines that match, each with its labels and the number that was unwrapped, or 1."""
        since = now - (self.seconds or VARIABLES["$__range"])
        taken = [self._take_one(entry) for entry in entries if since < entry.at <= now]
        return [one for one in taken if one is not None]

    def _take_one(self, entry: Entry) -> tuple[Entry, Labels, float] | None:
        for label, (match, wanted) in self.selector.items():
            if not MATCHES[match](entry.labels.get(label, ""), wanted):
                return None
        for symbol, text in self.line_filters:
            if (text in entry.line) != (symbol == "|="):
                return None
        labels = dict(entry.labels) | self._extract(json.loads(entry.line))
        if self.stamped:
            labels[self.stamped] = str(int(entry.at))
        for label, match, wanted in self.filters:
            if not MATCHES[match](labels.get(label, ""), wanted):
                return None
        value = 1.0 if self.unwrapped is None else float(labels.pop(self.unwrapped))
        return entry, frozenset(item for item in labels.items() if item[1]), value

    def _extract(self, line: Mapping[str, Any]) -> dict[str, str]:
        values = {label: line.get(name) for label, name in self.fields.items()}
        return {
            label: "" if value is None else value if isinstance(value, str) else json.dumps(value)
            for label, value in values.items()
        }


class Query:
    """A query, read: its ranges are there to be looked at, and it can be run."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.ranges: list[Range] = []
        self._tokens = list(tokens(text))
        self._at = 0
        self._run: Expression | None = None
        if self._peek() == "{":
            self.ranges.append(self._range())
        else:
            self._run = self._operation(0)
        if self._peek() is not None:
            self._refuse()

    def lines(self, entries: Sequence[Entry], now: float) -> list[str]:
        """Run a query for lines."""
        assert self._run is None, "it asks for numbers"
        return [entry.line for entry, _, _ in self.ranges[0].take(entries, now)]

    def vector(self, entries: Sequence[Entry], now: float) -> Vector:
        """Run a query for numbers at one moment."""
        assert self._run is not None, "it asks for lines"
        return self._run(entries, now)

    def matches(self, entries: Sequence[Entry], now: float) -> bool:
        """Say whether it finds anything."""
        return bool(self.lines(entries, now) if self._run is None else self.vector(entries, now))

    def _peek(self) -> str | None:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else None

    def _kind(self) -> str | None:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else None

    def _next(self, kind: str | None = None, *expected: str) -> str:
        if self._at >= len(self._tokens):
            self._refuse()
        found_kind, found = self._tokens[self._at]
        if (kind and found_kind != kind) or (expected and found not in expected):
            self._refuse()
        self._at += 1
        return found

    def _refuse(self) -> None:
        rest = " ".join(found for _, found in self._tokens[self._at : self._at + 6])
        raise UnknownLogQLError(f"not understood at {rest!r} of {self.text!r}")

    def _operation(self, strength: int) -> Expression:
        if strength == len(STRENGTHS):
            return self._primary()
        left = self._operation(strength + 1)
        while (sign := self._peek()) in STRENGTHS[strength]:
            self._next()
            left = combine(str(sign), left, self._operation(strength + 1))
        return left

    def _primary(self) -> Expression:
        if self._kind() == "number":
            number = float(self._next())
            return lambda _entries, _now: {NOBODY: number}
        if self._peek() == "(":
            self._next()
            inner = self._operation(0)
            self._next("symbol", ")")
            return inner
        name = self._next("word")
        if name == "vector":
            self._next("symbol", "(")
            number = float(self._next("number"))
            self._next("symbol", ")")
            return lambda _entries, _now: {NOBODY: number}
        if name in AGGREGATES:
            return self._aggregate(AGGREGATES[name])
        if name in COUNTING or name in UNWRAPPING:
            return self._over_time(name)
        return self._refuse_expression()

    def _refuse_expression(self) -> Expression:
        self._at -= 1
        self._refuse()
        raise AssertionError

    def _aggregate(self, fold: Callable[[Iterable[float]], float]) -> Expression:
        by = self._by()
        self._next("symbol", "(")
        inner = self._operation(0)
        self._next("symbol", ")")
        by = by or self._by()

        def run(entries: Sequence[Entry], now: float) -> Vector:
            groups: dict[Labels, list[float]] = {}
            for labels, value in inner(entries, now).items():
                groups.setdefault(frozenset(item for item in labels if item[0] in by), []).append(value)
            return {labels: fold(values) for labels, values in groups.items()}

        return run

    def _by(self) -> set[str]:
        if self._peek() != "by":
            return set()
        self._next()
        self._next("symbol", "(")
        labels = {self._next("word")}
        while self._next("symbol", ",", ")") == ",":
            labels.add(self._next("word"))
        return labels

    def _over_time(self, name: str) -> Expression:
        self._next("symbol", "(")
        taken = self._range()
        self._next("symbol", ")")
        self.ranges.append(taken)
        if taken.seconds is None or (taken.unwrapped is None) != (name in COUNTING):
            raise UnknownLogQLError(f"{name} of what it does not take: {self.text!r}")

        def run(entries: Sequence[Entry], now: float) -> Vector:
            series: dict[Labels, list[float]] = {}
            for _, labels, value in sorted(taken.take(entries, now), key=lambda one: one[0].at):
                series.setdefault(labels, []).append(value)
            if name == "absent_over_time":
                return {} if series else {NOBODY: 1.0}
            if name == "rate":
                return {labels: len(values) / (taken.seconds or 1) for labels, values in series.items()}
            if name == "count_over_time":
                return {labels: float(len(values)) for labels, values in series.items()}
            return {labels: UNWRAPPING[name](values) for labels, values in series.items()}

        return run

    def _range(self) -> Range:
        taken = Range()
        self._next("symbol", "{")
        while True:
            label, match, wanted = self._next("word"), self._next("symbol", *MATCHES), self._string()
            taken.selector[label] = (match, wanted)
            if self._next("symbol", ",", "}") == "}":
                break
        while self._peek() in {"|=", "!=", "|"}:
            self._stage(taken)
        if self._kind() == "duration":
            word = self._next()[1:-1]
            taken.seconds = VARIABLES.get(word) or int(word[:-1]) * UNITS[word[-1]]
        return taken

    def _stage(self, taken: Range) -> None:
        symbol = self._next("symbol")
        if symbol in {"|=", "!="}:
            taken.line_filters.append((symbol, self._string()))
            return
        word = self._next("word")
        if word == "json":
            self._json(taken)
        elif word == "unwrap":
            taken.unwrapped = self._next("word")
        elif word == "label_format":
            taken.stamped = self._next("word")
            self._next("symbol", "=")
            self._next("text", TIMESTAMP)
        else:
            taken.filters.append((word, self._next("symbol", *MATCHES), self._string()))

    def _json(self, taken: Range) -> None:
        """Read the fields to extract. All of them at once would make labels of ids: it is refused."""
        while True:
            label = self._next("word")
            self._next("symbol", "=")
            taken.fields[label] = self._string()
            if self._peek() != ",":
                return
            self._next()

    def _string(self) -> str:
        text = self._next("text")
        value: str = json.loads(text) if text.startswith('"') else text[1:-1]
        return value


def tokens(text: str) -> Iterable[tuple[str, str]]:
    """Split a query into words, each with its kind."""
    at = 0
    while text[at:].strip():
        found = TOKEN.match(text, at)
        if found is None:
            raise UnknownLogQLError(f"not understood at {text[at : at + 20]!r} of {text!r}")
        yield str(found.lastgroup), found[str(found.lastgroup)]
        at = found.end()


def combine(sign: str, left: Expression, right: Expression) -> Expression:
    """Join two vectors by their labels; one without labels joins whatever the other has, as a number does."""

    def run(entries: Sequence[Entry], now: float) -> Vector:
        ours, theirs = left(entries, now), right(entries, now)
        if sign == "or":
            return theirs | ours
        if sign in {"and", "unless"}:
            return {labels: value for labels, value in ours.items() if (labels in theirs) == (sign == "and")}
        pairs = {
            labels: (value, theirs[labels if labels in theirs else NOBODY])
            for labels, value in ours.items()
            if labels in theirs or NOBODY in theirs
        }
        if sign in COMPARISONS:
            return {labels: pair[0] for labels, pair in pairs.items() if COMPARISONS[sign](*pair)}
        return {labels: ARITHMETIC[sign](*pair) for labels, pair in pairs.items()}

    return run
