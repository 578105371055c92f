"""The log lines of our processes, as a person at a terminal wants to read them."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

SHOWN_LEVELS = frozenset({"warning", "error", "critical"})
COMMON_FIELDS = frozenset({"schema_version", "process", "event", "level", "timestamp", "logger"})
WIDTH = 400
BULK_SECONDS = 1.0  # between two lines about a bulk run
LULL_SECONDS = 10.0  # after which it is another bulk run
NAMED = 3  # of the collections that an audit found
FOUND = {
    "missing": "without a row",
    "mismatched": "different",
    "orphaned": "deleted but there",
}
ENDED = {
    "backfill_finished": "has seen every row",
    "backfill_paused": "is paused",
    "backfill_cancelled": "is cancelled",
    "backfill_interrupted": "was interrupted",
}

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shown:
    """A line to print. folds: it takes the place of the line before it, where that folds too."""

    text: str
    folds: bool = False


class Live:
    """Turns log lines into what is printed of them; of what is said again and again, only the changes."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._bulk = Bulk(now)
        self._found: dict[int, list[str]] = {}
        self._audited = ""
        self._health = ("up", "up")
        self._tellers: dict[str, Callable[[Fields], Shown | None]] = {
            "event_settled": self._event,
            "batch_settled": self._bulk.add,
            "audit_finding": self._finding,
            "audit_finished": self._audit,
            "worker_heartbeat": self._heartbeat,
        }

    def describe(self, line: str) -> Shown | None:
        """Return what to show for a log line, or None for one that only machines want."""
        try:
            fields = json.loads(line)
        except ValueError:
            return None  # not ours; shown if the process dies
        if not isinstance(fields, dict):
            return None
        event = str(fields.get("event"))
        if (tell := self._tellers.get(event)) is not None:
            return tell(fields)
        if (told := TOLD.get(event)) is not None:
            return Shown(told(fields))
        return Shown(complaint(fields)) if fields.get("level") in SHOWN_LEVELS else None

    def _event(self, fields: Fields) -> Shown | None:
        """Show an event but where it stands for many: those of a bulk run are folded."""
        return None if "one_of" in fields else Shown(settled(fields))

    def _finding(self, fields: Fields) -> None:
        self._found.setdefault(fields["run_id"], []).append(fields["collection_id"])

    def _audit(self, fields: Fields) -> Shown | None:
        """Show an audit that was asked for; of the others, one that does not say what the last one said."""
        said = audited(fields, self._found.pop(fields["run_id"], []))
        is_news = said != self._audited or fields["requested_by"] != "schedule"
        self._audited = said
        return Shown(f"{clock(fields)}  audit      {said}") if is_news else None

    def _heartbeat(self, fields: Fields) -> Shown | None:
        health = (fields["database"], fields["redis"])
        before, self._health = self._health, health
        if health == before:
            return None
        hint = f": {fields['hint']}" if fields.get("hint") else ""
        return Shown(f"{clock(fields)}  worker     PostgreSQL is {health[0]}, Redis is {health[1]}{hint}")


class Bulk:
    """What a backfill's events come to, folded into one line a second."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._applied = 0
        self._began_at = self._shown_at = self._heard_at = -LULL_SECONDS

    def add(self, fields: Fields) -> Shown | None:
        if fields["lane"] != "backfill" or not fields["applied"]:
            return None
        now, seconds = self._now(), fields["duration_ms"] / 1000
        if now - self._heard_at >= LULL_SECONDS:
            self._applied, self._began_at = 0, now - seconds
        self._heard_at = now
        self._applied += fields["applied"]
        if now - self._shown_at < BULK_SECONDS and self._applied > fields["applied"]:
            return None
        self._shown_at = now
        speed = self._applied / max(now - self._began_at, seconds, 0.001)
        text = f"{clock(fields)}  backfill   {self._applied:,} events applied, {speed:,.0f} a second"
        return Shown(text, folds=True)


def clock(fields: Fields) -> str:
    return f"{datetime.fromisoformat(str(fields['timestamp'])).astimezone():%H:%M:%S}"


def duration(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:,.1f} s"  # noqa: PLR2004


def settled(fields: Fields) -> str:
    where = f"{fields['project_id']}/{fields['collection_id']}"
    origin = f"event {fields['event_id']} from {fields['source']}"
    line = f"{clock(fields)}  {fields['outcome']:<9}  {fields['event_type']:<18}  {where}"
    reason = f"  {fields['error']}" if "error" in fields else ""
    return f"{line}  {origin}, {duration(fields['lag_ms'])} after the write{reason}"


def audited(fields: Fields, found: list[str]) -> str:
    verdict = str(fields["verdict"] or "failed").replace("_", " ")
    kinds = [f"{fields[kind]:,} {said}" for kind, said in FOUND.items() if fields[kind]]
    if not kinds:
        return f"{verdict}: {fields['compared']:,} pairs compared"
    named = ", ".join(found[:NAMED]) + (", …" if len(found) > NAMED else "")
    what = f"{verdict}: of {fields['compared']:,} pairs {' and '.join(kinds)}{f' ({named})' if named else ''}"
    return f"{what}; `python -m worker.status` says what to type"


def backfill_ended(fields: Fields) -> str:
    counts = (
        f"{fields['enqueued']:,} enqueued, {fields['skipped']:,} of {fields['processed']:,} needed nothing"
    )
    return f"{clock(fields)}  backfill   run {fields['run_id']} {ENDED[str(fields['event'])]}: {counts}"


def rolled_back(fields: Fields) -> str:
    kept = fields["kept_enriched"] + fields["kept_found"] + fields["kept_links"]
    would = "would be " if fields["dry_run"] else ""
    return f"{clock(fields)}  rollback   {fields['removed']:,} rows {would}removed, {kept:,} kept"


def complaint(fields: Fields) -> str:
    details = " ".join(
        f"{name}={_value(value)}" for name, value in fields.items() if name not in COMMON_FIELDS
    )
    line = f"{clock(fields)}  {fields['level']} in {fields['process']}: {fields['event']}  {details}"
    return " ".join(line.split())[:WIDTH]


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


TOLD: dict[str, Callable[[Fields], str]] = {
    **dict.fromkeys(ENDED, backfill_ended),
    "rollback_finished": rolled_back,
}
