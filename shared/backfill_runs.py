"""Backfill runs as rows: starting one, looking at it, pausing, resuming, cancelling.

Driving a run is the worker's part (`worker/backfill/run.py`).
"""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Row,
    ScalarSelect,
    Update,
    and_,
    extract,
    func,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningInsert

from shared.choices import DEFAULT_MAX_PENDING
from shared.tables.legacy import collections
from shared.tables.runs import backfill_runs

FIRST_CHUNK_ROWS = 1_000
DRIVEN_SECONDS = 3  # a driver without a sign of life for so long may be replaced

runs = backfill_runs.c


@dataclass(frozen=True, slots=True)
class BackfillOptions:
    """What a run is to do: one home project or all; its speed in rows a second; who drives it."""

    project_id: str | None = None
    rate: int | None = None
    max_pending: int = DEFAULT_MAX_PENDING
    in_worker: bool = False


@dataclass(frozen=True, slots=True)
class BackfillRun:
    """A row of `backfill_runs`, as it was when it was read; its columns are explained there."""

    id: int
    status: str
    in_worker: bool
    project_id: str | None
    rate: int | None
    max_pending: int
    chunk_size: int
    cursor_key: str | None
    end_key: str | None
    planned: int
    processed: int
    enqueued: int
    skipped: int
    missing: int
    mismatched: int
    orphaned: int
    last_event_id: int | None
    throttled_by: str | None
    slowed_by: str | None
    driver: str | None
    has_driver: bool
    started_at: datetime
    heartbeat_at: datetime
    heartbeat_age_seconds: float
    finished_at: datetime | None

    @property
    def is_unfinished(self) -> bool:
        """Whether it can go on: it is running or paused."""
        return self.status in UNFINISHED

    @property
    def is_driven(self) -> bool:
        """Whether a process drives it: one that has let go, or has been silent for 3 s, does not count."""
        return self.status == "running" and self.has_driver and self.heartbeat_age_seconds < DRIVEN_SECONDS

    @property
    def duration_seconds(self) -> float:
        """From its start to its end, or to its last sign of life; pauses included."""
        return ((self.finished_at or self.heartbeat_at) - self.started_at).total_seconds()


class BackfillRunError(Exception):
    """The run cannot be started or changed as asked; the message says why."""


class RunUnfinishedError(BackfillRunError):
    """There is a run already that is neither finished nor cancelled."""

    def __init__(self, run: BackfillRun) -> None:
        super().__init__(f"Backfill {run.id} is not finished: it is {run.status}.")
        self.run = run


class RunDrivenError(BackfillRunError):
    """Another process drives the run, and gave a sign of life within the last three seconds."""

    def __init__(self, run: BackfillRun) -> None:
        super().__init__(f"Backfill {run.id} is being driven by {run.driver}.")
        self.run = run


class NoUnfinishedRunError(BackfillRunError):
    """There is no run that could be paused, resumed or cancelled."""

    def __init__(self, last: BackfillRun | None) -> None:
        was = "none has run yet" if last is None else f"the last one, {last.id}, is {last.status}"
        super().__init__(f"There is no unfinished backfill: {was}.")
        self.last = last


UNFINISHED = ("running", "paused")
IS_UNFINISHED = runs.status.in_(UNFINISHED)
# A process that replaces a driver has this in the WHERE of its UPDATE. PostgreSQL evaluates it again after a
# wait for the row's lock, so a driver that is alive but slow keeps its run.
HAS_NO_DRIVER = or_(
    runs.driver_token.is_(None),
    runs.heartbeat_at < func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, DRIVEN_SECONDS),
)

COMPUTED: dict[str, ColumnElement[Any]] = {
    "has_driver": runs.driver_token.is_not(None),
    "heartbeat_age_seconds": extract("epoch", func.clock_timestamp() - runs.heartbeat_at).cast(Float),
}
COLUMNS = [
    (COMPUTED[field.name] if field.name in COMPUTED else runs[field.name]).label(field.name)
    for field in fields(BackfillRun)
]

MOST_RUNS = 20  # that are listed
# One at most: backfill_runs_one_at_a_time.
READ_UNFINISHED = select(*COLUMNS).where(IS_UNFINISHED)
# Served by backfill_runs_by_start, read backwards.
READ_LATEST = select(*COLUMNS).order_by(runs.started_at.desc()).limit(1)
READ_NEWEST = select(*COLUMNS).order_by(runs.started_at.desc()).limit(MOST_RUNS)


def as_run(row: Row[Any]) -> BackfillRun:
    """Make the run of a row that holds COLUMNS."""
    return BackfillRun(**row._mapping)  # noqa: SLF001 - a public name of SQLAlchemy's


async def start(connection: AsyncConnection, options: BackfillOptions) -> BackfillRun:
    """Create a run over all collections that exist now; it waits for a driver.

    What is inserted later with a key beyond the highest of now is not looked at, so that the run
    ends although inserts go on: each brings its own event. At ten million rows counting them takes
    seconds.

    Raises:
        RunUnfinishedError: one is running or paused; of two callers at once exactly one gets this.

    """
    while True:
        unfinished = (await connection.execute(READ_UNFINISHED)).one_or_none()
        if unfinished is not None:
            raise RunUnfinishedError(as_run(unfinished))
        created = (await connection.execute(_creation_of(options))).one_or_none()
        if created is not None:
            return as_run(created)


def _creation_of(options: BackfillOptions) -> ReturningInsert[Any]:
    planned, end_key = _extent(options.project_id)
    values = {
        "status": "running",
        "in_worker": options.in_worker,
        "project_id": options.project_id,
        "rate": options.rate,
        "max_pending": options.max_pending,
        "chunk_size": FIRST_CHUNK_ROWS,
        "planned": planned,
        "end_key": end_key,
    }
    return insert(backfill_runs).values(values).on_conflict_do_nothing().returning(*COLUMNS)


def _extent(project_id: str | None) -> tuple[ScalarSelect[int], ScalarSelect[str]]:
    # Served by collections_pkey and, for a project, by idx_collection_project_id.
    in_scope = select(collections.c.collection_id)
    if project_id is not None:
        in_scope = in_scope.where(collections.c.project_id == project_id)
    planned = select(func.count()).select_from(in_scope.subquery()).scalar_subquery()
    return planned, in_scope.order_by(collections.c.collection_id.desc()).limit(1).scalar_subquery()


async def plan(connection: AsyncConnection, project_id: str | None) -> tuple[int, str | None]:
    """Return what a run would plan now: the number of collections, and the highest key if there is one."""
    planned, end_key = (await connection.execute(select(*_extent(project_id)))).one()
    return planned, end_key


async def latest(connection: AsyncConnection) -> BackfillRun | None:
    """Return the run that was started last, or None when there was none yet."""
    row = (await connection.execute(READ_LATEST)).one_or_none()
    return None if row is None else as_run(row)


async def newest(connection: AsyncConnection) -> list[BackfillRun]:
    """Return the newest runs, the newest first; MOST_RUNS at most."""
    return [as_run(row) for row in await connection.execute(READ_NEWEST)]


async def pause(connection: AsyncConnection) -> BackfillRun:
    """Make the run stop after its present chunk until it is resumed; a paused one stays so.

    Raises:
        NoUnfinishedRunError: no run is running or paused.

    """
    paused = update(backfill_runs).where(IS_UNFINISHED).values(status="paused", throttled_by=null())
    return await _change(connection, paused)


async def cancel(connection: AsyncConnection) -> BackfillRun:
    """End the run after its present chunk, for good. The events it appended stay.

    Raises:
        NoUnfinishedRunError: no run is running or paused.

    """
    cancelled = {"status": "cancelled", "throttled_by": null(), "finished_at": func.clock_timestamp()}
    return await _change(connection, update(backfill_runs).where(IS_UNFINISHED).values(cancelled))


async def set_rate(connection: AsyncConnection, rate: int | None) -> BackfillRun:
    """Bound the unfinished run to this many rows a second, or with None to none; from its next chunk on.

    Raises:
        NoUnfinishedRunError: no run is running or paused.

    """
    return await _change(connection, update(backfill_runs).where(IS_UNFINISHED).values(rate=rate))


async def resume(connection: AsyncConnection, in_worker: bool) -> BackfillRun:  # noqa: FBT001 - its name is agreed
    """Make a run that is paused, or that its driver left, wait for a driver: workers or the caller.

    It goes on where it stopped, with the options it was started with. A driver from before that is
    still there stops before its next chunk.

    Raises:
        NoUnfinishedRunError: no run is running or paused.
        RunDrivenError: the run has a driver.

    """
    resumable = and_(IS_UNFINISHED, or_(runs.status == "paused", HAS_NO_DRIVER))
    waiting = {
        "status": "running",
        "in_worker": in_worker,
        "driver_token": null(),
        "heartbeat_at": func.clock_timestamp(),
    }
    return await _change(connection, update(backfill_runs).where(resumable).values(waiting))


async def _change(connection: AsyncConnection, change: Update) -> BackfillRun:
    changed = (await connection.execute(change.returning(*COLUMNS))).one_or_none()
    if changed is not None:
        return as_run(changed)
    run = await latest(connection)
    if run is None or not run.is_unfinished:
        raise NoUnfinishedRunError(run)
    raise RunDrivenError(run)
