"""Who carries out a run: taking it up, showing that its process lives, writing its progress and its end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.audit_runs import AuditOptions, AuditRun, fetch
from shared.postgres.database import autocommit
from shared.postgres.faults import is_transient
from shared.tables.runs import audit_runs

HEARTBEAT_SECONDS = 1
NOW = text("clock_timestamp()")

BEGIN = (
    insert(audit_runs).values(status="running", started_at=NOW, heartbeat_at=NOW).returning(audit_runs.c.id)
)

# Served by audit_runs_unfinished. Audits of everything come first: those of a project, however many somebody
# asks for, prove less. A run that was begun before starts anew: what it only reported is forgotten, what it
# repaired stays, to be verified.
TAKE_UP = text("""
    WITH taken AS (
        SELECT id FROM audit_runs
        WHERE status IN ('requested', 'running') AND (status = 'requested'
            OR coalesce(heartbeat_at < clock_timestamp() - interval '5 seconds', true))
        ORDER BY project_id IS NOT NULL, requested_at
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    ), forgotten AS (
        DELETE FROM audit_findings AS finding USING taken
        WHERE finding.audit_run_id = taken.id AND finding.repair_event_id IS NULL
    )
    UPDATE audit_runs AS run
    SET status = 'running', started_at = clock_timestamp(), heartbeat_at = clock_timestamp()
    FROM taken WHERE run.id = taken.id
    RETURNING run.id
""")

# Served by audit_runs_unfinished and audit_runs_by_end, read backwards: by time, as ids may have begun anew.
# Audits of everything take at most a twentieth of the time.
IS_DUE = text("""
    SELECT NOT EXISTS (
        SELECT FROM audit_runs WHERE status IN ('requested', 'running') AND project_id IS NULL
    ) AND coalesce((
        SELECT clock_timestamp() - finished_at
            > greatest(interval '60 seconds', 20 * (finished_at - coalesce(started_at, finished_at)))
        FROM audit_runs WHERE finished_at IS NOT NULL AND project_id IS NULL
        ORDER BY finished_at DESC LIMIT 1
    ), true)
""")

# The newest that finished is kept however old it is: it is the last proof there is. So is what a rollback
# left, see worker/rollback/record.py. Served by audit_runs_by_end.
PRUNE = text("""
    DELETE FROM audit_runs
    WHERE finished_at < clock_timestamp() - interval '30 days' AND requested_by <> 'rollback'
        AND id IS DISTINCT FROM (
            SELECT id FROM audit_runs WHERE status = 'finished' AND finished_at IS NOT NULL
            ORDER BY finished_at DESC LIMIT 1
        )
""")


class RunLostError(Exception):
    """Another process carries the run out by now, or somebody ended it."""


async def begin(connection: AsyncConnection, options: AuditOptions, requested_by: str) -> int:
    """Insert a run that the caller carries out itself, and return its id."""
    values = {"requested_by": requested_by, "project_id": options.project_id, "repair": options.repair}
    run_id: int = (await connection.execute(BEGIN, values)).scalar_one()
    return run_id


async def take_up(engine: AsyncEngine) -> int | None:
    """Take the oldest run that is requested, or whose process died, and return its id, or None.

    No other process gets it. A run counts as dead when its heartbeat is older than five seconds, or missing.
    """
    async with autocommit(engine) as connection:
        run_id: int | None = (await connection.execute(TAKE_UP)).scalar()
        return run_id


async def is_due(engine: AsyncEngine) -> bool:
    """Return whether the schedule wants an audit: none of everything waits or runs, the last ended long ago.

    Long: more than 60 s and than 20 times its own duration.
    """
    async with autocommit(engine) as connection:
        return bool((await connection.execute(IS_DUE)).scalar_one())


class Custody:
    """The right to write to one run, held until somebody else takes the run up."""

    def __init__(self, engine: AsyncEngine, run: AuditRun) -> None:
        """Hold the run as it was taken; the moment it was started is the token."""
        self._engine = engine
        self.run = run
        self._started_at: datetime | None = run.started_at

    @classmethod
    async def of(cls, engine: AsyncEngine, run_id: int) -> "Custody":
        """Hold the run that was begun or taken up.

        Raises:
            RunLostError: it does not run.

        """
        async with engine.connect() as connection:
            run = await fetch(connection, run_id)
        if run is None or run.status != "running":
            msg = f"Audit run {run_id} is not running."
            raise RunLostError(msg)
        return cls(engine, run)

    async def write(self, values: Mapping[str, Any]) -> None:
        """Write columns of the run, and that its process lives.

        Raises:
            RunLostError: the run is not this process's any more; nothing was written.

        """
        async with self._engine.begin() as connection:
            await self._write(connection, values)

    async def finish(self, values: Mapping[str, Any]) -> AuditRun:
        """Write the run's end, forget runs older than 30 days, and return it as it is now.

        Raises:
            RunLostError: the run is not this process's any more; nothing was written.

        """
        async with self._engine.begin() as connection:
            await self._write(connection, {**values, "finished_at": NOW})
            await connection.execute(PRUNE)
        async with self._engine.connect() as connection:
            run = await fetch(connection, self.run.id)
        if run is None:
            msg = f"Audit run {self.run.id} was deleted."
            raise RunLostError(msg)
        return run

    async def _write(self, connection: AsyncConnection, values: Mapping[str, Any]) -> None:
        mine = (audit_runs.c.id == self.run.id) & (audit_runs.c.started_at == self._started_at)
        written = await connection.execute(
            update(audit_runs)
            .where(mine, audit_runs.c.status == "running")
            .values(heartbeat_at=NOW, **values)
        )
        if written.rowcount != 1:
            msg = f"Audit run {self.run.id} was taken up by another process."
            raise RunLostError(msg)

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Show each second that this process lives, also while a long statement runs."""
        heart = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                await self.write({})
            except RunLostError:
                return  # the next write of progress says so
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                if not is_transient(error):
                    raise
