"""The worker's heartbeat in its log: that it lives, and what waits."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import structlog
from sqlalchemy import Row, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.lanes import KNOWN_LANES, NAMES
from shared.planner import LOOKS, for_transaction
from shared.postgres.database import refuse_wrong_sequences
from shared.postgres.faults import OF_THE_DRIVER
from shared.postgres.pooler import ReadOnlyServerError, UnfitServerError
from shared.postgres.read_only import NEW_SESSIONS_ARE_READ_ONLY
from shared.process.printable import printable
from shared.redis.outage import Fault
from shared.status.history import backfilled_at, last_rollback, latest_backfill
from shared.status.session import Parts
from shared.status.waiting import LANES, MOST_COUNTED, holders
from shared.verdict.facts import LockHolder
from shared.verdict.obstacles import STUCK_SECONDS
from worker.vitals.unknown_versions import UnknownVersions

logger = structlog.get_logger(__name__)

BEAT_SECONDS = 5
HEARTBEAT_PATIENCE_SECONDS = 2.0

MOST_HOLDERS = 3
LONGEST_NAME = 100
LONGEST_REASON = 500
# Left out while they are not known.
LEFT_OUT = {
    *("read_only", "held_by", "backfill", "backfilled_at", "rollback"),
    *("phase", "epoch", "phase_since", "fell_back", "phase_reason", "lists_mismatched"),
}

# At what comes first in an index, and no further: see shared/planner.py. A session that locks one of our
# tables is to be named, not waited for.
PLANNING = text(for_transaction(LOOKS | {"lock_timeout": "250ms"}))
# Reads the server's list of locks and no table: whether any session waits for one, so that only then it is
# asked for whom.
STANDSTILL = text(f"""
    SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted) AS anybody_waits,
        {NEW_SESSIONS_ARE_READ_ONLY} AS is_read_only
""")  # noqa: S608 - a constant
# One row at most: by migration_phase_pkey, and by phase_turns_pkey. While reads are moved also by
# shadow_counts_pkey: a row for each minute of the epoch.
PHASE = text("""
    SELECT phase, epoch, extract(epoch FROM since)::float8 AS phase_since,
        coalesce(kind = 'fall_back', false) AS fell_back, reason AS phase_reason,
        CASE WHEN phase = 'reads_moved' THEN (
            SELECT coalesce(sum(mismatched), 0)::bigint FROM shadow_counts
            WHERE shadow_counts.epoch = migration_phase.epoch
        ) END AS lists_mismatched
    FROM migration_phase LEFT JOIN phase_turns USING (epoch)
    WHERE singleton
""")


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The fields of one `worker_heartbeat` line; counts are None while PostgreSQL does not answer.

    held_by is not in the line where nothing waits, so that nobody asked. backfill, rollback: not in the line
    while they are not known, and empty where there was none yet.
    """

    worker: str
    uptime_seconds: float
    database: str
    redis: str
    pending_live: int | None = None
    pending_repair: int | None = None
    pending_backfill: int | None = None
    oldest_live_seconds: float | None = None
    oldest_repair_seconds: float | None = None
    oldest_backfill_seconds: float | None = None
    pending_unknown_version: int | None = None
    dead_letters: int | None = None
    clock_offset_ms: float | None = None
    read_only: bool | None = None
    held_by: list[dict[str, Any]] | None = None
    backfill: dict[str, Any] | None = None
    backfilled_at: float | None = None
    rollback: dict[str, Any] | None = None
    phase: str | None = None
    epoch: int | None = None
    phase_since: float | None = None
    fell_back: bool | None = None
    phase_reason: str | None = None
    lists_mismatched: int | None = None
    hint: str | None = None


class Heart:
    """Writes a heartbeat each time it is asked to, whether PostgreSQL answers or not.

    It looks with one connection of the engine at a time, and notifies its observers. The process's other
    engines lend no connection either where the server turns out to be unfit.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        name: str,
        watch: Callable[[Heartbeat], None] | None = None,
        others: Sequence[AsyncEngine] = (),
    ) -> None:
        self._engine = engine
        self._others = others
        self._name = name
        self._watch = watch
        self._began = time.monotonic()
        self._redis: Fault | None = None
        self._unknown_versions = UnknownVersions()
        self._rollback: dict[str, Any] | None = None
        self._has_asked = False

    def note_redis(self, fault: Fault | None) -> None:
        """Report from now on that Redis is up, or what ails it."""
        self._redis = fault

    async def beat(self) -> None:
        """Look at what waits, for two seconds at most, and write the line."""
        fault = self._redis
        redis = "up" if fault is None else "refuses" if fault.hint else "away"
        uptime = round(time.monotonic() - self._began, 1)
        heartbeat = Heartbeat(self._name, uptime, "away", redis, hint=fault.hint if fault else None)
        try:
            async with asyncio.timeout(HEARTBEAT_PATIENCE_SECONDS):
                await refuse_wrong_sequences(self._engine, *self._others)
                heartbeat = await self._look(heartbeat)
        except UnfitServerError as error:
            is_read_only = isinstance(error, ReadOnlyServerError)
            heartbeat = replace(heartbeat, database="unfit", hint=str(error), read_only=is_read_only)
        except (SQLAlchemyError, *OF_THE_DRIVER, OSError, TimeoutError):
            self._has_asked = False  # it is away
        log = logger.info if heartbeat.database == "up" else logger.warning
        log("worker_heartbeat", **_fields(heartbeat))
        if self._watch is not None:
            self._watch(heartbeat)

    async def _look(self, heartbeat: Heartbeat) -> Heartbeat:
        """Read it in parts: what lies in a locked table stays None, and who has locked it is named."""
        async with self._engine.begin() as connection:
            await connection.execute(PLANNING)
            parts = Parts(connection)
            counts = await parts.read("lanes", self._count)
            runs = await parts.read("backfill", _backfills)
            phase = await parts.read("phase", _phase)
            if not self._has_asked:
                await parts.read("rollback", self._ask_for_rollback)
            at_a_standstill = (await connection.execute(STANDSTILL)).one()
            heartbeat = replace(
                heartbeat,
                database="up",
                **(counts or {}),
                read_only=at_a_standstill.is_read_only,
                **(runs or {}),
                **(phase or {}),
                rollback=self._rollback,
            )
            if at_a_standstill.anybody_waits or parts.unknown or _oldest_seconds(heartbeat) >= STUCK_SECONDS:
                held_by = (await holders(connection))[:MOST_HOLDERS]
                heartbeat = replace(heartbeat, held_by=[_shown(holder) for holder in held_by])
        return heartbeat

    async def _count(self, connection: AsyncConnection) -> dict[str, Any]:
        began = time.time()
        lanes = (await connection.execute(LANES, {"most": MOST_COUNTED})).all()
        asked_at = (began + time.time()) / 2
        seen = lanes[0]
        self._unknown_versions.note(seen.unknown_events, seen.first_lane, seen.last_lane)
        return {
            **_of_each_name(lanes),
            "pending_unknown_version": seen.unknown_events,
            "dead_letters": seen.dead_letters,
            "clock_offset_ms": round((asked_at - seen.database_time) * 1000, 3),
        }

    async def _ask_for_rollback(self, connection: AsyncConnection) -> None:
        """Ask once for each time that the database was not away: none is made beside a worker."""
        last = await last_rollback(connection)
        self._rollback = {} if last is None else {"status": last.status, "ended_at": last.ended_at}
        self._has_asked = True


async def _backfills(connection: AsyncConnection) -> dict[str, Any]:
    run = await latest_backfill(connection)
    return {
        "backfill": {} if run is None else asdict(run),
        "backfilled_at": await backfilled_at(connection),
    }


async def _phase(connection: AsyncConnection) -> dict[str, Any]:
    row = (await connection.execute(PHASE)).mappings().one_or_none()
    if row is None:
        return {}
    reason: str | None = row["phase_reason"]
    return {**row, "phase_reason": None if reason is None else printable(reason, LONGEST_REASON)}


def _fields(heartbeat: Heartbeat) -> dict[str, Any]:
    return {
        name: value for name, value in asdict(heartbeat).items() if value is not None or name not in LEFT_OUT
    }


def _oldest_seconds(heartbeat: Heartbeat) -> float:
    return max(getattr(heartbeat, f"oldest_{name}_seconds") or 0.0 for name in NAMES.values())


def _shown(holder: LockHolder) -> dict[str, Any]:
    """Return a holder as the log has it: its client chose its name."""
    return {
        name: printable(value, LONGEST_NAME) if isinstance(value, str) else value
        for name, value in asdict(holder).items()
    }


def _of_each_name(lanes: Sequence[Row[Any]]) -> dict[str, Any]:
    """Sum up the lanes of all known versions under their names."""
    found: dict[str, Any] = {}
    for name in NAMES.values():
        of_name = [lane for lane in lanes if KNOWN_LANES[lane.lane] == name]
        found[f"pending_{name}"] = sum(lane.pending for lane in of_name)
        found[f"oldest_{name}_seconds"] = round(max(lane.oldest_seconds for lane in of_name), 3)
    return found
