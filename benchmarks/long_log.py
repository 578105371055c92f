"""A log as a busy system writes it, of which some lines are corrupt, and what it costs to open it."""

import json
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.commands import Ran, run_command
from shared.logs.contract import problems
from shared.logs.declaring import LOG_VERSION

BLOCK_LINES = 20_000
LINES_A_SECOND = 400  # in the log's own time
BEAT: Mapping[str, object] = {
    "worker": "host:1", "uptime_seconds": 3600.0, "database": "up", "redis": "up", "pending_live": 3,
    "pending_repair": 0, "pending_backfill": 4_000, "oldest_live_seconds": 0.01, "oldest_repair_seconds": 0.0,
    "oldest_backfill_seconds": 12.0, "dead_letters": 0, "clock_offset_ms": 0.4,
}  # fmt: skip
AUDIT: Mapping[str, object] = {
    "run_id": 7, "status": "finished", "verdict": "in_sync", "error": None, "project_id": None,
    "repair": False, "requested_by": "schedule", "chunks_planned": 100, "chunks_done": 100,
    "planned": 1_000_000, "compared": 1_000_000, "active_collections": 1_000_000, "home_rows": 1_000_000,
    "missing": 0, "mismatched": 0, "orphaned": 0, "pending": 0, "repaired": 0, "canary_found": True,
    "unlisted": 0, "duration_ms": 2400.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Written:
    """What was written to a log."""

    size: int
    lines: int
    corrupt: int


class Mix:
    """Makes lines as a busy system writes them: of one hundred, 85 are of events."""

    def __init__(self, seed: int, begin: float) -> None:
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._now = begin
        self._event_id = 0

    def line(self) -> bytes:
        self._now += 1 / LINES_A_SECOND
        choice = self._random.random()
        if choice < 0.85:  # noqa: PLR2004 - the mix
            return self._made("event_settled", self._event())
        if choice < 0.97:  # noqa: PLR2004
            return self._made("batch_settled", self._batch())
        if choice < 0.99:  # noqa: PLR2004
            return self._made("worker_heartbeat", BEAT)
        if choice < 0.999:  # noqa: PLR2004
            return self._made("redis_lost", {"level": "warning", "error": "TimeoutError"})
        return self._made("audit_finished", AUDIT)

    def _event(self) -> dict[str, object]:
        self._event_id += 1
        digits = self._random.getrandbits(128)
        dead = self._random.random() < 0.0001  # noqa: PLR2004
        fate: dict[str, object] = {"outcome": "applied"}
        if dead:
            fate = {
                "level": "error",
                "outcome": "dead",
                "sqlstate": "22007",
                "error": "invalid datetime format",
            }
        return {
            "event_id": self._event_id, "collection_id": f"{digits:032x}",
            "project_id": f"project-{digits % 500}", "event_type": "collection.updated", "source": "api",
            "lag_ms": round(1 + digits % 9_000 / 1000, 3),
            "trace_id": f"{digits:032x}", **fate,
        }  # fmt: skip

    def _batch(self) -> dict[str, object]:
        counts = {str(self._random.randrange(5, 60)): self._random.randrange(1, 9) for _ in range(4)}
        claimed = sum(counts.values())
        none = dict.fromkeys(("stale", "conflated", "obsolete", "dead", "postponed"), 0)
        return {
            "wake": "doorbell", "lane": self._random.choice(("live", "live", "repair", "backfill")),
            "claimed": claimed, "applied": claimed, **none, "oldest_pending_ms": 2.1, "lag_ms_p50": 2.2,
            "lag_ms_p95": 4.0, "lag_ms_p99": 9.0, "lag_ms_max": 12.5, "lag_ms_counts": counts,
            "duration_ms": 1.9,
        }  # fmt: skip

    def _made(self, event: str, fields: Mapping[str, object]) -> bytes:
        stamp = datetime.fromtimestamp(self._now, UTC).isoformat(timespec="microseconds")
        timestamp = stamp.replace("+00:00", "Z")
        common = {"timestamp": timestamp, "level": "info", "event": event, "process": "worker"}
        line = {**common, "schema_version": LOG_VERSION, **fields}
        if self._event_id < 100:  # noqa: PLR2004 - the first show that the rest keeps the contract
            assert problems(line) == [], problems(line)  # noqa: S101
        return json.dumps(line).encode()


def corrupted(line: bytes, chance: random.Random) -> bytes:
    """Return the line as something that cannot be read: cut, no text, no JSON, or none of ours."""
    match chance.randrange(4):
        case 0:
            return line[: chance.randrange(1, len(line))]
        case 1:
            return line[:40] + b"\xff\xfe" + line[40:]
        case 2:
            return line.replace(b":", b"=")
        case _:
            return b'{"no": "line of ours"}'


def blocks(size: int, corrupt: float) -> Iterator[tuple[bytes, int, int]]:
    """Yield the log in blocks, with how many lines each has and how many are corrupt."""
    mix = Mix(1, time.time() - size / 350 / LINES_A_SECOND)
    chance = random.Random(2)  # noqa: S311 - no secret
    written = 0
    while written < size:
        lines, broken = [], 0
        for _ in range(BLOCK_LINES):
            line = mix.line()
            if chance.random() < corrupt:
                line, broken = corrupted(line, chance), broken + 1
            lines.append(line)
            written += len(line) + 1
            if written >= size:
                break
        yield b"\n".join(lines) + b"\n", len(lines), broken


def write(path: Path, size: int, corrupt: float) -> Written:
    """Write a log of about `size` bytes."""
    lines = broken = 0
    with path.open("wb") as file:
        for block, count, bad in blocks(size, corrupt):
            file.write(block)
            lines, broken = lines + count, broken + bad
    return Written(path.stat().st_size, lines, broken)


def open_log(log: Path, page: Path) -> Ran:
    """Write the log's page with the command that an operator uses; its result counts the lines.

    Raises:
        LocalError: the command failed.

    """
    return run_command("worker.dashboard", str(log), "--html", str(page))
