"""Backfills as administrators see them: started, read, paused, resumed and cancelled over HTTP."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from api.admin.acts import acting
from api.context import CollectionSync
from api.field_types import Text, Timestamp
from api.gate.errors import BackfillNotFoundError, ProjectNotFoundError, RefusalError
from api.gate.identification import identification
from shared import backfill_runs
from shared.backfill_runs import (
    BackfillOptions,
    BackfillRun,
    BackfillRunError,
    NoUnfinishedRunError,
    RunDrivenError,
    RunUnfinishedError,
)
from shared.choices import DEFAULT_MAX_PENDING
from shared.tables.legacy import projects

logger = structlog.get_logger(__name__)

Count = Annotated[int, Field(gt=0, lt=2**31)]

EXAMPLE_NEW: JsonDict = {"rate": 5000, "max_pending": DEFAULT_MAX_PENDING}
EXAMPLE: JsonDict = {
    "id": 3,
    "status": "running",
    "in_worker": True,
    "project_id": "a1111111-0000-4000-8000-000000000001",
    "rate": 5000,
    "max_pending": DEFAULT_MAX_PENDING,
    "planned": 25,
    "processed": 0,
    "enqueued": 0,
    "skipped": 0,
    "missing": 0,
    "mismatched": 0,
    "orphaned": 0,
    "throttled_by": "20000 of its events wait",
    "driver": "worker-1:17",
    "is_driven": True,
    "started_at": "2025-10-02T10:11:12.345678+00:00",
    "heartbeat_at": "2025-10-02T10:11:13.456789+00:00",
}
EXAMPLE_OUTCOME = "Backfill 3 is started: workers look at 25 collections."
EXAMPLE_CONFLICT: JsonDict = {"detail": "Backfill 3 is not finished: it is running.", "run": EXAMPLE}


class NewBackfill(BaseModel):
    """What to backfill, and how fast. Workers do it; live writes always go first."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE_NEW]})

    project_id: Text | None = Field(None, description="Only the collections of this home project.")
    rate: Count | None = Field(None, description="At most this many rows a second; null: no limit.")
    max_pending: Count = Field(
        DEFAULT_MAX_PENDING, description="Wait while this many of its events are pending."
    )


class Backfill(BaseModel):
    """A backfill and how far it is. Rows are those of `collections`."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [EXAMPLE]})

    id: int
    status: Literal["running", "paused", "cancelled", "finished"]
    in_worker: bool = Field(description="Workers drive it; otherwise a command does.")
    project_id: str | None
    rate: int | None
    max_pending: int
    planned: int = Field(description="Rows at its start.")
    processed: int = Field(description="Rows looked at: enqueued or skipped.")
    enqueued: int = Field(description="Rows that got an event: missing, mismatched or orphaned.")
    skipped: int = Field(description="Rows that needed none.")
    missing: int
    mismatched: int
    orphaned: int
    throttled_by: str | None = Field(description="Why it waits at the moment.")
    driver: str | None = Field(description="host:pid:drawn of the process that drives it or drove it last.")
    is_driven: bool = Field(description="A process drives it and gave a sign of life within three seconds.")
    started_at: Timestamp
    heartbeat_at: Timestamp
    finished_at: Timestamp | None = None


class OrderedBackfill(Backfill):
    """The backfill after what was asked for."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE | {"outcome": EXAMPLE_OUTCOME}]})

    outcome: str = Field(description="What was done, in a sentence.")


class BackfillConflict(BaseModel):
    """Why that cannot be done to the present backfill, and that backfill, if there is one."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_CONFLICT]})

    detail: str
    run: Backfill | None


class BackfillConflictError(RefusalError):
    """The run's state does not allow it."""

    status = HTTPStatus.CONFLICT

    def __init__(self, error: BackfillRunError, run: BackfillRun | None) -> None:
        self.detail = str(error)
        self.more = {"run": None if run is None else Backfill.model_validate(run).model_dump(mode="json")}


DONE = {
    "start": "is started: workers look at {run.planned:,} collections.",
    "pause": "is paused after {run.processed:,} of {run.planned:,} collections.",
    "resume": "goes on after {run.processed:,} of {run.planned:,} collections.",
    "cancel": "is cancelled after {run.processed:,} of {run.planned:,} collections; what it has enqueued is"
    " applied all the same.",
}

Action = Callable[[AsyncConnection], Awaitable[BackfillRun]]


async def start(sync: CollectionSync, actor: str, new: NewBackfill) -> OrderedBackfill:
    """Start a run that workers drive; one of them takes it up within about a second.

    Raises:
        ProjectNotFoundError: there is no such project.
        BackfillConflictError: another run is not finished.

    """
    options = BackfillOptions(new.project_id, new.rate, new.max_pending, in_worker=True)

    async def action(connection: AsyncConnection) -> BackfillRun:
        await _require_project(connection, new.project_id)
        return await backfill_runs.start(connection, options)

    return await _act(sync, actor, "start", action)


async def read_latest(sync: CollectionSync) -> Backfill:
    """Return the run that was started last.

    Raises:
        BackfillNotFoundError: there was none yet.

    """
    async with sync.engine.connect() as connection:
        run = await backfill_runs.latest(connection)
    if run is None:
        raise BackfillNotFoundError
    return Backfill.model_validate(run)


async def pause(sync: CollectionSync, actor: str) -> OrderedBackfill:
    """Make the run stop after its present chunk; raises BackfillConflictError when none is unfinished."""
    return await _act(sync, actor, "pause", backfill_runs.pause)


async def resume(sync: CollectionSync, actor: str) -> OrderedBackfill:
    """Let workers go on with a run that is paused or was left.

    Raises:
        BackfillConflictError: none is unfinished, or it is being driven.

    """
    return await _act(
        sync, actor, "resume", lambda connection: backfill_runs.resume(connection, in_worker=True)
    )


async def cancel(sync: CollectionSync, actor: str) -> OrderedBackfill:
    """End the run for good; raises BackfillConflictError when none is unfinished."""
    return await _act(sync, actor, "cancel", backfill_runs.cancel)


async def _act(sync: CollectionSync, actor: str, name: str, action: Action) -> OrderedBackfill:
    try:
        async with acting(sync, actor, f"backfill.{name}") as act:
            run = await action(act.connection)
            act.subject = f"backfill {run.id}"
            act.outcome = f"Backfill {run.id} {DONE[name].format(run=run)}"
    except (RunUnfinishedError, RunDrivenError) as error:
        raise BackfillConflictError(error, error.run) from error
    except NoUnfinishedRunError as error:
        raise BackfillConflictError(error, error.last) from error
    sync.doorbell.press()
    logger.info("backfill_ordered", order=name, run_id=run.id, status=run.status, **identification())
    shown = Backfill.model_validate(run).model_dump()
    return OrderedBackfill.model_validate({**shown, "outcome": act.outcome})


async def _require_project(connection: AsyncConnection, project_id: str | None) -> None:
    if project_id is None:
        return
    found = await connection.execute(select(projects.c.project_id).where(projects.c.project_id == project_id))
    if found.one_or_none() is None:
        raise ProjectNotFoundError
