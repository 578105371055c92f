"""Audits as rows: requesting one, and reading what it found."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Float, Select, extract, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.tables.runs import audit_runs


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """What to audit: one home project or, with None, all; `repair` appends events for what is found."""

    project_id: str | None = None
    repair: bool = False


@dataclass(frozen=True, slots=True)
class AuditRun:
    """One audit as `audit_runs` holds it. Counts are what was found, also when it was repaired.

    status: requested, running, finished or failed. A failed run proves nothing.
    requested_by: command, schedule, backfill or admin; rollback: it voids what was proved before.
    verdict: in_sync, pending, drift, repaired or incomplete; None while it is not known.
    chunks_planned, chunks_done: slices of the key space, each compared on one snapshot.
    planned, compared: collections counted, and those that went through the comparison.
    pending: differ, but an event for them waits; never part of missing, mismatched and orphaned.
    age_seconds: since it finished, by the database's clock; None before that.
    """

    id: int
    status: str
    verdict: str | None
    requested_by: str
    project_id: str | None
    repair: bool
    chunks_planned: int
    chunks_done: int
    planned: int
    compared: int
    active_collections: int
    home_rows: int
    missing: int
    mismatched: int
    orphaned: int
    pending: int
    repaired: int
    canary_found: bool | None
    error: str | None
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    age_seconds: float | None

    @property
    def found(self) -> int:
        """The pairs that differ although no event for them waits."""
        return self.missing + self.mismatched + self.orphaned

    @property
    def duration_seconds(self) -> float | None:
        """From its start to its end; None before that."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


AGE_SECONDS = extract("epoch", func.clock_timestamp() - audit_runs.c.finished_at).cast(Float)
COLUMNS = [
    AGE_SECONDS.label(field.name) if field.name == "age_seconds" else audit_runs.c[field.name]
    for field in fields(AuditRun)
]


async def request(connection: AsyncConnection, options: AuditOptions, requested_by: str) -> int:
    """Ask the workers for an audit and return its id; one of them takes it up within about a second.

    Args:
        connection: in a transaction of the caller's.
        options: what to audit.
        requested_by: command, schedule, backfill or admin.

    """
    inserted = await connection.execute(
        insert(audit_runs)
        .values(
            status="requested",
            requested_by=requested_by,
            project_id=options.project_id,
            repair=options.repair,
        )
        .returning(audit_runs.c.id)
    )
    run_id: int = inserted.scalar_one()
    return run_id


async def fetch(connection: AsyncConnection, run_id: int) -> AuditRun | None:
    """Read one audit by its id."""
    return await _first(connection, select(*COLUMNS).where(audit_runs.c.id == run_id))


async def latest_finished(connection: AsyncConnection) -> AuditRun | None:
    """Read the audit that came to an end last; those that failed are passed over."""
    finished = (audit_runs.c.status == "finished", audit_runs.c.finished_at.is_not(None))
    newest = select(*COLUMNS).where(*finished).order_by(audit_runs.c.finished_at.desc())
    return await _first(connection, newest.limit(1))


async def _first(connection: AsyncConnection, statement: Select[Any]) -> AuditRun | None:
    row = (await connection.execute(statement)).first()
    return None if row is None else AuditRun(*row)
