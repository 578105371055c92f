"""Lines of the log as the contract has them, at times of a test's choice."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from shared.logs.contract import CONTRACT, problems
from shared.logs.declaring import LOG_VERSION
from worker.dashboard.log_state import Clock, LogState

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC).timestamp()
PLAIN: dict[str, Any] = {
    "string": "text",
    "integer": 0,
    "number": 0.0,
    "boolean": False,
    "object": {},
    "array": [],
}
USUAL: dict[str, dict[str, Any]] = {
    "worker_heartbeat": {
        "worker": "host:1", "database": "up", "redis": "up", "uptime_seconds": 60.0, "pending_live": 0,
        "pending_repair": 0, "pending_backfill": 0, "oldest_live_seconds": 0.0, "oldest_repair_seconds": 0.0,
        "oldest_backfill_seconds": 0.0, "dead_letters": 0, "clock_offset_ms": 0.0,
    },
    "batch_settled": {"wake": "doorbell", "lane": "live"},
    "event_settled": {"event_type": "collection.updated", "source": "api", "outcome": "applied"},
    "audit_finished": {
        "status": "finished", "verdict": "in_sync", "requested_by": "schedule", "duration_ms": 500.0,
    },
    "audit_finding": {"kind": "mismatched"},
    "audit_finding_repaired": {"kind": "mismatched", "outcome": "repaired"},
}  # fmt: skip


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def fields(event: str, at: float = NOW, **given: object) -> dict[str, Any]:
    """Return a line of this event as an object; fields that are not given hold nothing of note."""
    contract = CONTRACT[event]
    own = {
        name: None if field.nullable else PLAIN[field.type]
        for name, field in contract.fields.items()
        if not field.optional
    }
    common = {
        "timestamp": stamp(at), "level": contract.levels[0], "event": event, "process": "worker",
        "schema_version": LOG_VERSION,
    }  # fmt: skip
    line = {**common, **own, **USUAL.get(event, {}), **given}
    assert problems(line) == []
    return line


def line(event: str, at: float = NOW, **given: object) -> str:
    """Return the same as text."""
    return json.dumps(fields(event, at, **given), ensure_ascii=False)


def batch(at: float = NOW, lane: str = "live", lags: dict[int, int] | None = None, **outcomes: int) -> str:
    """Return the line of a batch with these outcomes and lags by bucket."""
    claimed = sum(outcomes.values())
    counts = {str(bucket): count for bucket, count in (lags or {}).items()}
    longest = 1.1 ** max(lags) if lags else None
    return line(
        "batch_settled", at, lane=lane, claimed=claimed, lag_ms_counts=counts, lag_ms_max=longest, **outcomes
    )


def folded(*lines: str, now: float = NOW) -> LogState:
    """Return the state after these lines, read at `now`."""
    state = LogState(lambda: now)
    state.fold(lines, Clock())
    return state


def text(lines: Iterable[str]) -> bytes:
    """Return the lines as a file holds them."""
    return "".join(f"{line}\n" for line in lines).encode()
