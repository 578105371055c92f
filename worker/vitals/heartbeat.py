"""The worker's heartbeat in its log: that it lives, and what waits."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import asyncpg
import structlog
from sqlalchemy import Row, text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.lanes import KNOWN_LANES, NAMES
from shared.planner import LOOKS, for_transaction
from shared.postgres.database import refuse_wrong_sequences
from shared.postgres.pooler import UnfitServerError
from shared.redis.outage import Fault
from shared.status.waiting import LANES, MOST_COUNTED
from worker.vitals.unknown_versions import UnknownVersions

logger = structlog.get_logger(__name__)

BEAT_SECONDS = 5
# The last is what a login that is refused comes as.
OF_THE_DRIVER = (asyncpg.PostgresError, asyncpg.InterfaceError, AsyncAdapt_asyncpg_dbapi.Error)
HEARTBEAT_PATIENCE_SECONDS = 2.0

# At what comes first in an index, and no further: see shared/planner.py.
PLANNING = text(for_transaction(LOOKS))


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The fields of one `worker_heartbeat` line; counts are None while PostgreSQL does not answer."""

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
            heartbeat = replace(heartbeat, database="unfit", hint=str(error))
        except (SQLAlchemyError, *OF_THE_DRIVER, OSError, TimeoutError):
            pass  # it is away
        log = logger.info if heartbeat.database == "up" else logger.warning
        log("worker_heartbeat", **asdict(heartbeat))
        if self._watch is not None:
            self._watch(heartbeat)

    async def _look(self, heartbeat: Heartbeat) -> Heartbeat:
        async with self._engine.begin() as connection:
            await connection.execute(PLANNING)
            began = time.time()
            lanes = (await connection.execute(LANES, {"most": MOST_COUNTED})).all()
            asked_at = (began + time.time()) / 2
        seen = lanes[0]
        self._unknown_versions.note(seen.unknown_events, seen.first_lane, seen.last_lane)
        return replace(
            heartbeat,
            database="up",
            **_of_each_name(lanes),
            pending_unknown_version=seen.unknown_events,
            dead_letters=seen.dead_letters,
            clock_offset_ms=round((asked_at - seen.database_time) * 1000, 3),
        )


def _of_each_name(lanes: Sequence[Row[Any]]) -> dict[str, Any]:
    """Sum up the lanes of all known versions under their names."""
    found: dict[str, Any] = {}
    for name in NAMES.values():
        of_name = [lane for lane in lanes if KNOWN_LANES[lane.lane] == name]
        found[f"pending_{name}"] = sum(lane.pending for lane in of_name)
        found[f"oldest_{name}_seconds"] = round(max(lane.oldest_seconds for lane in of_name), 3)
    return found
