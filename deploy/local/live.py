"""The log lines of the API and the worker, as a person at a terminal wants to read them."""

import json
from datetime import datetime

SHOWN_LEVELS = frozenset({"warning", "error", "critical"})
COMMON_FIELDS = frozenset({"schema_version", "process", "event", "level", "timestamp", "logger"})
WIDTH = 400


def clock(fields: dict[str, object]) -> str:
    return f"{datetime.fromisoformat(str(fields['timestamp'])).astimezone():%H:%M:%S}"


def settled(fields: dict[str, object]) -> str:
    where = f"{fields['project_id']}/{fields['collection_id']}"
    origin = f"event {fields['event_id']} from {fields['source']}"
    line = f"{clock(fields)}  {fields['outcome']:<9}  {fields['event_type']:<18}  {where}"
    reason = f"  {fields['error']}" if "error" in fields else ""
    return f"{line}  {origin}, {fields['lag_ms']:.0f} ms after the write{reason}"


def audited(fields: dict[str, object]) -> str:
    return f"{clock(fields)}  audit: {fields['verdict']}  {fields['compared']} pairs compared"


def complaint(fields: dict[str, object]) -> str:
    details = " ".join(f"{name}={value}" for name, value in fields.items() if name not in COMMON_FIELDS)
    line = f"{clock(fields)}  {fields['level']} in {fields['process']}: {fields['event']}  {details}"
    return " ".join(line.split())[:WIDTH]


def describe(line: str) -> str | None:
    """Return what to show for a log line, or None for one that only machines want."""
    try:
        fields = json.loads(line)
    except ValueError:
        return None  # not ours; shown if the process dies
    if not isinstance(fields, dict):
        return None
    if fields.get("event") == "event_settled":
        return settled(fields)
    if fields.get("event") == "audit_finished":
        return audited(fields)
    return complaint(fields) if fields.get("level") in SHOWN_LEVELS else None
