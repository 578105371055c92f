"""Whether phase 1 is done: an audit that a worker carries out while the administrator waits.

It takes the place of the legacy check, which compared two global counts: those may agree by chance, and
must differ as soon as a collection is linked to a second project. Here every pair is compared.
"""

import asyncio
import time
from dataclasses import asdict
from http import HTTPStatus
from types import MappingProxyType
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from api.admin.acts import acting
from api.context import CollectionSync
from api.field_types import Timestamp
from api.gate.errors import AuditNotFoundError, RefusalError
from api.gate.identification import identification
from shared.audit_runs import AuditOptions, AuditRun, fetch, latest_finished, request

logger = structlog.get_logger(__name__)

POLL_SECONDS = 0.2
UNDER_WAY_RETRY_SECONDS = 2
NO_WORKER_RETRY_SECONDS = 10

Verdict = Literal["in_sync", "pending", "drift", "repaired", "incomplete"]

EXAMPLE: JsonDict = {
    "match": True,
    "verdict": "in_sync",
    "active_collections": 25,
    "home_rows": 25,
    "compared": 27,
    "missing": 0,
    "mismatched": 0,
    "orphaned": 0,
    "pending": 0,
    "verified_at": "2025-10-02T10:11:12.345678+00:00",
    "audit_id": 7,
    "message": "Every collection was compared with its row, and all agree. Nothing is left to do.",
}
EXAMPLE_UNDER_WAY: JsonDict = {
    "audit_id": 8,
    "status": "running",
    "planned": 10_000_000,
    "compared": 2_500_000,
    "message": "Audit 8 is under way. Ask again with ?audit_id=8.",
}

EXAMPLE_ORDERED: JsonDict = {
    "audit_id": 9,
    "repair": True,
    "outcome": "Audit 9 is requested; it repairs what it finds.",
}

NO_WORKER = (
    "No worker carries out audit {audit_id}: start one with `python -m worker`, then ask again with"
    " ?audit_id={audit_id}."
)
EXAMPLE_NO_WORKER = f"{NO_WORKER.format(audit_id=8)} The last audit, 7, finished 60 s ago: in_sync."

ADVICE: dict[str, str] = {
    "in_sync": "Every collection was compared with its row, and all agree. Nothing is left to do.",
    "pending": "No drift: {run.pending} pairs differ only because their events wait. Ask again once the"
    " workers have applied them.",
    "drift": "{run.found} pairs differ, and no event is on its way to them. If the backfill was not run yet,"
    " run it: POST /admin/backfill. Otherwise `python -m worker.audit --repair` mends them, but for those"
    " whose events die: `python -m worker.dead_letters list` tells why. Then verify again.",
    "repaired": "{run.repaired} pairs differed, and this audit repaired them. Verify again: only a clean pass"
    " is the proof.",
    "incomplete": "The audit came to no verdict, so it proves nothing. See the worker's log; verify again.",
}

ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(6331058142207371014)")  # used for nothing else

# Both served by audit_runs_unfinished.
FIND_REQUESTED = text("""
    SELECT id FROM audit_runs
    WHERE status = 'requested' AND project_id IS NULL AND repair = :repair
    ORDER BY requested_at
    LIMIT 1
""")
# A worker shows that it lives by the heartbeat of what it carries out. It takes up what was requested
# within about a second, so in the first one nothing is known yet.
IS_TENDED = text("""
    SELECT count(*) > 0 FROM audit_runs
    WHERE status IN ('requested', 'running')
        AND (
            (status = 'running' AND heartbeat_at > clock_timestamp() - interval '5 seconds')
            OR (id = :audit_id AND status = 'requested'
                AND requested_at > clock_timestamp() - interval '3 seconds')
        )
""")


class Verification(BaseModel):
    """What the audit found. Counts are of pairs of a collection and its row in the home project."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    match: bool = Field(description="True only when all was compared and all agrees.")
    verdict: Verdict
    active_collections: int
    home_rows: int = Field(description="Rows of project_collections in the collection's own project.")
    compared: int
    missing: int = Field(description="Collections without their row.")
    mismatched: int = Field(description="Rows that differ from their collection.")
    orphaned: int = Field(description="Rows of collections that are deleted.")
    pending: int = Field(description="Pairs that differ because their event waits. No drift.")
    verified_at: Timestamp
    audit_id: int
    message: str = Field(description="What to do next.")


class VerificationUnderWay(BaseModel):
    """How far the audit is that verifies."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_UNDER_WAY]})

    audit_id: int
    status: Literal["requested", "running"]
    planned: int = Field(description="Pairs to compare, as far as they were counted.")
    compared: int
    message: str = Field(description="How to ask again.")


class OrderedAudit(BaseModel):
    """An audit that was requested; `verify-phase1-migration?audit_id=` shows how it goes on."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_ORDERED]})

    audit_id: int
    repair: bool
    outcome: str = Field(description="What was done, in a sentence.")


class NoWorkerError(RefusalError):
    """No worker carries out the audit."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers = MappingProxyType({"Retry-After": str(NO_WORKER_RETRY_SECONDS)})

    def __init__(self, audit_id: int, last: AuditRun | None) -> None:
        self.detail = f"{NO_WORKER.format(audit_id=audit_id)} {_last_known(last)}"


async def request_audit(sync: CollectionSync, actor: str, *, repair: bool = False) -> OrderedAudit:
    """Request an audit of everything; requests of the same kind that come before it begins share it."""
    async with acting(sync, actor, "audit.repair" if repair else "audit.request") as act:
        await act.connection.execute(ONE_AT_A_TIME)
        found = await act.connection.execute(FIND_REQUESTED, {"repair": repair})
        audit_id: int | None = found.scalar_one_or_none()
        was = "was requested already and has not begun" if audit_id is not None else "is requested"
        if audit_id is None:
            audit_id = await request(act.connection, AuditOptions(repair=repair), "admin")
        act.subject = f"audit {audit_id}"
        act.outcome = f"Audit {audit_id} {was}{'; it repairs what it finds' if repair else ''}."
    sync.doorbell.press()
    logger.info("verification_requested", audit_id=audit_id, **identification())
    return OrderedAudit(audit_id=audit_id, repair=repair, outcome=act.outcome)


async def verify(
    sync: CollectionSync, audit_id: int, wait_seconds: float
) -> Verification | VerificationUnderWay:
    """Return what the audit found, or how far it is after `wait_seconds`. No connection is held meanwhile.

    Raises:
        AuditNotFoundError: there is none of that id that is of everything.
        NoWorkerError: no worker is at it.

    """
    deadline = time.monotonic() + wait_seconds
    run = await _read(sync, audit_id)
    while run.finished_at is None and (left := deadline - time.monotonic()) > 0:
        await asyncio.sleep(min(POLL_SECONDS, left))
        run = await _read(sync, audit_id)
    if run.finished_at is not None:
        return verification_of(run)
    async with sync.engine.connect() as connection:
        if not await _is_tended(connection, audit_id):
            raise NoWorkerError(audit_id, await latest_finished(connection))
    return under_way(run)


async def _read(sync: CollectionSync, audit_id: int) -> AuditRun:
    async with sync.engine.connect() as connection:
        run = await fetch(connection, audit_id)
    if run is None or run.project_id is not None:
        raise AuditNotFoundError
    return run


async def _is_tended(connection: AsyncConnection, audit_id: int) -> bool:
    return bool((await connection.execute(IS_TENDED, {"audit_id": audit_id})).scalar_one())


def verification_of(run: AuditRun) -> Verification:
    """Turn an audit that has ended into its answer; one that failed proves nothing."""
    verdict = run.verdict if run.status == "finished" and run.verdict else "incomplete"
    answer = {
        "match": verdict == "in_sync",
        "verdict": verdict,
        "verified_at": run.finished_at,
        "audit_id": run.id,
        "message": " ".join(filter(None, (ADVICE[verdict].format(run=run), _more(verdict, run)))),
    }
    return Verification.model_validate(asdict(run) | answer)


def _more(verdict: str, run: AuditRun) -> str | None:
    return f"Reason: {run.error}" if verdict in {"incomplete", "drift"} and run.error else None


def under_way(run: AuditRun) -> VerificationUnderWay:
    waits = "waits for its turn" if run.status == "requested" else "is under way"
    message = f"Audit {run.id} {waits}. Ask again with ?audit_id={run.id}."
    return VerificationUnderWay.model_validate(asdict(run) | {"audit_id": run.id, "message": message})


def _last_known(last: AuditRun | None) -> str:
    if last is None:
        return "No audit has finished yet."
    scope = "" if last.project_id is None else f" of project {last.project_id} only"
    return f"The last audit, {last.id}{scope}, finished {last.age_seconds or 0:.0f} s ago: {last.verdict}."
