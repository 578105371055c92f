"""Who keeps PostgreSQL from removing acknowledged events: named in the log, for an operator to end it."""

from dataclasses import dataclass, replace
from typing import Any

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.database import autocommit

logger = structlog.get_logger(__name__)

SNAPSHOT_LOOK_SECONDS = 2
HELD_SECONDS = 10.0
REMIND_SECONDS = 60.0

# Reads no table: the server's lists of sessions, slots and prepared transactions. Any role may read
# them, but of other roles' sessions it does not see `state` and `xact_start` without pg_read_all_stats.
# A transaction keeps what was deleted since its snapshot (xmin), or, once it has written, since it
# began to (xid). Other databases' sessions and VACUUM keep nothing of ours; nor does a snapshot that
# no transaction came after.
HOLDERS = text("""
    SELECT kind, pid, name, "user", application_name, database, state, xid::text, xmin::text,
        extract(epoch FROM clock_timestamp() - began_at)::float8 AS transaction_seconds,
        pg_stat_get_dead_tuples(to_regclass('outbox_events')) AS dead_events,
        extract(epoch FROM clock_timestamp())::float8 AS seen_at
    FROM (
        SELECT 'session', pid, NULL, usename, application_name, datname, state,
            backend_xid, backend_xmin, xact_start
        FROM pg_stat_activity
        WHERE (datname = current_database() OR datname IS NULL)
            AND pid <> pg_backend_pid()
            AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
        UNION ALL
        SELECT 'replication_slot', active_pid, slot_name, NULL, NULL, database,
            CASE WHEN active THEN 'active' ELSE 'inactive' END, NULL, xmin, NULL
        FROM pg_replication_slots
        UNION ALL
        SELECT 'prepared_transaction', NULL, gid, owner, NULL, database,
            'prepared', transaction, NULL, prepared
        FROM pg_prepared_xacts
        WHERE database = current_database()
    ) AS holder (kind, pid, name, "user", application_name, database, state, xid, xmin, began_at)
    WHERE greatest(age(xid), age(xmin)) > 0
""")


@dataclass(frozen=True, slots=True)
class Holder:
    """A session, slot or prepared transaction that may keep rows from being removed, at one moment.

    `name` is a slot's, or the identifier of a prepared transaction. `state` and `transaction_seconds`
    are None where our role may not see them. `dead_events` is PostgreSQL's estimate of the rows of
    `outbox_events` that were deleted and are still there, whatever keeps them. `seen_at` is in seconds,
    by the database's clock.
    """

    kind: str
    pid: int | None
    name: str | None
    user: str | None
    application_name: str | None
    database: str | None
    state: str | None
    xid: str | None
    xmin: str | None
    transaction_seconds: float | None
    dead_events: int | None
    seen_at: float

    @property
    def who(self) -> tuple[str, int | None, str | None]:
        """The session, slot or prepared transaction, whatever it holds at the moment."""
        return self.kind, self.pid if self.kind == "session" else None, self.name

    def holds_what(self, earlier: "Holder") -> bool:
        """Return whether it holds what it, or another, held earlier: the same snapshot or transaction."""
        same_xid = self.xid is not None and self.xid == earlier.xid
        same_xmin = self.xmin is not None and self.xmin == earlier.xmin
        return same_xid or same_xmin


async def held_snapshots(engine: AsyncEngine) -> list[Holder]:
    """Return what holds a snapshot or a transaction open at this moment, however briefly.

    Raises:
        sqlalchemy.exc.DBAPIError, OSError, TimeoutError: PostgreSQL could not be asked.

    """
    async with autocommit(engine) as connection:
        return [Holder(*row) for row in await connection.execute(HOLDERS)]


@dataclass(slots=True)
class Watched:
    """A holder and the first look that found it holding what it holds; when it was reported last."""

    first: Holder
    latest: Holder
    reported_at: float | None = None

    @property
    def held_seconds(self) -> float:
        """How long it has held that at least: by our own looks, and by its transaction if visible."""
        watched = self.latest.seen_at - self.first.seen_at
        return max(watched, self.latest.transaction_seconds or 0.0)

    @property
    def is_due(self) -> bool:
        """Return whether it is time to report it, for the first time or again."""
        if self.reported_at is None:
            return self.latest.seen_at - self.first.seen_at >= HELD_SECONDS
        return self.latest.seen_at - self.reported_at >= REMIND_SECONDS

    def fields(self) -> dict[str, Any]:
        holder = self.latest
        return {
            "kind": holder.kind,
            "pid": holder.pid,
            "name": holder.name,
            "user": holder.user,
            "application_name": holder.application_name,
            "database": holder.database,
            "state": holder.state,
            "held_seconds": round(self.held_seconds, 1),
            "dead_events": holder.dead_events,
        }


class SnapshotWatch:
    """Reports each holder of a snapshot after ten seconds, again each minute, and when it lets go."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._watched: dict[tuple[str, int | None, str | None], Watched] = {}

    @property
    def longest_held_seconds(self) -> float:
        """For how long, by the last look, a snapshot has been held; 0 when none is."""
        return max((watched.held_seconds for watched in self._watched.values()), default=0.0)

    async def look(self) -> None:
        """Ask PostgreSQL once, and log what is due. Cheap, but every SNAPSHOT_LOOK_SECONDS is often enough.

        Raises:
            sqlalchemy.exc.DBAPIError, OSError, TimeoutError: PostgreSQL could not be asked; the next
                look goes on where this one would have.

        """
        holders = await held_snapshots(self._engine)
        before, self._watched = self._watched, {}
        for holder in holders:
            known = before.get(holder.who)
            if known is not None and holder.holds_what(known.latest):
                self._watched[holder.who] = replace(before.pop(holder.who), latest=holder)
            else:
                self._watched[holder.who] = Watched(holder, holder)
        for watched in before.values():
            if watched.reported_at is not None:
                logger.info("snapshot_released", **watched.fields())
        for watched in self._watched.values():
            if watched.is_due:
                watched.reported_at = watched.latest.seen_at
                logger.warning("snapshot_held", **watched.fields())
