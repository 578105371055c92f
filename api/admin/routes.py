"""The administrators' endpoints, behind a token of their own; without one configured they do not exist."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response, Security
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader, HTTPBearer

from api import documentation
from api.admin import acts, backfills, dead_letters, phase, status, verification
from api.admin.acts import UNNAMED, ActListing, Actor, RecordedAct
from api.admin.backfills import Backfill, NewBackfill, OrderedBackfill
from api.admin.console.routes import console
from api.admin.letter_models import (
    Choice,
    ClosedLetter,
    DeadLetterGroups,
    DeadLetterPage,
    Discarded,
    LetterId,
    Listing,
    Replayed,
    WholeDeadLetter,
)
from api.admin.phase_models import Advance, CutoverState, GoBack, TurnedPhase
from api.admin.status import OneCollection, Status
from api.admin.verification import OrderedAudit, Verification, VerificationUnderWay
from api.context import Sync, of_request
from api.field_types import Text
from api.gate.admission import Bulkhead, Bulkheads
from api.gate.errors import UnknownAdminError
from api.gate.guarded_route import GuardedRoute
from api.gate.own_site import require_own_site
from api.gate.tokens import carries_token

HEADER = "X-Admin-Token"
NEEDED = "The administrators' token."

# For the OpenAPI document: the gate itself comes before any dependency, and before the body.
DOCUMENTED = [
    Security(HTTPBearer(scheme_name="AdminBearer", description=NEEDED, auto_error=False)),
    Security(APIKeyHeader(name=HEADER, scheme_name="AdminToken", description=NEEDED, auto_error=False)),
]

WaitSeconds = Annotated[float, Query(ge=0, le=60, description="How long to wait for the audit's end.")]
AuditId = Annotated[
    int | None, Query(ge=1, lt=2**63, description="Look at this audit again instead of a new one.")
]
CollectionInPath = Annotated[Text, Path(examples=["c1111111-0000-4000-8000-000000000001"])]
LetterInPath = Annotated[LetterId, Path(description="The dead letter's id.")]


def require_admin_token(request: Request) -> None:
    """Let the request pass when it carries the administrators' token.

    Raises:
        HTTPException: none is configured: the framework's own 404, as if nothing were here.
        UnknownAdminError: the request has none or another.

    """
    token = of_request(request).settings.admin_token
    if not token:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    if not carries_token(request, token, HEADER):
        raise UnknownAdminError


def admit(request: Request) -> None:
    """Let the request pass when it carries the token and no page of another site is behind it."""
    require_admin_token(request)
    require_own_site(request)


class AdminRoute(GuardedRoute):
    """A route for administrators, who come with their own token and need no gateway."""

    admit = staticmethod(admit)

    @staticmethod
    def bulkhead(bulkheads: Bulkheads, _request: Request) -> Bulkhead:
        return bulkheads.admin


admin = APIRouter(prefix="/admin", route_class=AdminRoute, dependencies=DOCUMENTED, tags=["admin"])
admin.include_router(console)


@admin.get(
    "/verify-phase1-migration",
    summary="Verify the migration of phase 1",
    response_model=Verification,
    responses=documentation.VERIFICATION,
)
async def verify_phase1_migration(
    sync: Sync, wait_seconds: WaitSeconds = 20, audit_id: AuditId = None, actor: Actor = UNNAMED
) -> Verification | Response:
    """Compare every collection with its row in `project_collections`, as a worker sees them now.

    A fresh audit is requested, unless one is waiting already, and carried out by a worker. When it
    takes longer than `wait_seconds` the answer is 202; ask again with `audit_id`.
    """
    if audit_id is None:
        audit_id = (await verification.request_audit(sync, actor)).audit_id
    result = await verification.verify(sync, audit_id, wait_seconds)
    if isinstance(result, VerificationUnderWay):
        again = {"Retry-After": str(verification.UNDER_WAY_RETRY_SECONDS)}
        return JSONResponse(result.model_dump(mode="json"), HTTPStatus.ACCEPTED, again)
    return result


@admin.get("/status", responses=documentation.ADMIN)
async def read_status(sync: Sync) -> Status:
    """Show where the migration stands and what goes on, as `python -m worker.status --json` does."""
    return await status.read_status(sync)


@admin.get("/collections/{collection_id}", responses=documentation.ADMIN_READ)
async def read_collection(sync: Sync, collection_id: CollectionInPath) -> OneCollection:
    """Show one collection as every table has it, and why: `python -m worker.status COLLECTION_ID --json`."""
    return await status.read_collection(sync, collection_id)


@admin.get("/acts", responses=documentation.ADMIN_READ)
async def list_acts(sync: Sync, listing: Annotated[ActListing, Query()]) -> list[RecordedAct]:
    """List what operators did over HTTP, the newest first."""
    return await acts.newest(sync, listing.before, listing.limit)


@admin.post("/audit", status_code=HTTPStatus.ACCEPTED, responses=documentation.ADMIN_READ)
async def request_audit(sync: Sync, actor: Actor = UNNAMED) -> OrderedAudit:
    """Let a worker compare everything now. What was asked for and has not begun is shared."""
    return await verification.request_audit(sync, actor)


@admin.post("/repair", status_code=HTTPStatus.ACCEPTED, responses=documentation.ADMIN_READ)
async def request_repair(sync: Sync, actor: Actor = UNNAMED) -> OrderedAudit:
    """Let a worker compare everything now and enqueue the present state of each pair that differs."""
    return await verification.request_audit(sync, actor, repair=True)


@admin.post("/backfill", status_code=HTTPStatus.ACCEPTED, responses=documentation.BACKFILL_START)
async def start_backfill(
    sync: Sync, new: NewBackfill | None = None, actor: Actor = UNNAMED
) -> OrderedBackfill:
    """Let the workers bring every collection to `project_collections` that it lacks or shows differently."""
    return await backfills.start(sync, actor, new or NewBackfill())


@admin.get("/backfill", responses=documentation.BACKFILL_READ)
async def read_backfill(sync: Sync) -> Backfill:
    """Show the backfill that was started last."""
    return await backfills.read_latest(sync)


@admin.post("/backfill/pause", responses=documentation.BACKFILL_CHANGE)
async def pause_backfill(sync: Sync, actor: Actor = UNNAMED) -> OrderedBackfill:
    """Stop the backfill after its present chunk, until it is resumed."""
    return await backfills.pause(sync, actor)


@admin.post("/backfill/resume", responses=documentation.BACKFILL_CHANGE)
async def resume_backfill(sync: Sync, actor: Actor = UNNAMED) -> OrderedBackfill:
    """Let the workers go on with a backfill that was paused, or whose process has gone."""
    return await backfills.resume(sync, actor)


@admin.post("/backfill/cancel", responses=documentation.BACKFILL_CHANGE)
async def cancel_backfill(sync: Sync, actor: Actor = UNNAMED) -> OrderedBackfill:
    """End the backfill for good. What it has enqueued is applied all the same."""
    return await backfills.cancel(sync, actor)


@admin.get("/dead-letters", responses=documentation.DEAD_LETTERS)
async def list_dead_letters(sync: Sync, listing: Annotated[Listing, Query()]) -> DeadLetterPage:
    """List events that could not be applied, oldest first; only dead ones unless `state` says otherwise."""
    return await dead_letters.read_page(sync, listing)


@admin.get("/dead-letters/groups", responses=documentation.DEAD_LETTER_GROUPS)
async def list_dead_letter_groups(sync: Sync) -> DeadLetterGroups:
    """List what open dead letters died of, the most frequent first, and how many there are of each.

    `like` chooses such a group for a replay or a discard.
    """
    return await dead_letters.read_groups(sync)


@admin.get("/dead-letters/{letter_id}", responses=documentation.DEAD_LETTER)
async def read_dead_letter(sync: Sync, letter_id: LetterInPath) -> WholeDeadLetter:
    """Show one dead letter, with what PostgreSQL said, which may quote what users wrote.

    What its event held is shown by `python -m worker.dead_letters show`.
    """
    return await dead_letters.read_one(sync, letter_id)


@admin.post("/dead-letters/{letter_id}/replay", responses=documentation.DEAD_LETTER_CHANGE)
async def replay_dead_letter(sync: Sync, letter_id: LetterInPath, actor: Actor = UNNAMED) -> ClosedLetter:
    """Append the present state of the letter's collection, behind users' writes, and close the letter.

    It can never overwrite anything newer.
    """
    return await dead_letters.replay_one(sync, actor, letter_id)


@admin.post("/dead-letters/{letter_id}/discard", responses=documentation.DEAD_LETTER_CHANGE)
async def discard_dead_letter(sync: Sync, letter_id: LetterInPath, actor: Actor = UNNAMED) -> ClosedLetter:
    """Close the letter for good; nothing is appended."""
    return await dead_letters.discard_one(sync, actor, letter_id)


@admin.post("/dead-letters/replay", responses=documentation.DEAD_LETTERS_CHANGE)
async def replay_dead_letters(sync: Sync, choice: Choice, actor: Actor = UNNAMED) -> Replayed:
    """Replay the letters that are chosen, a bounded number in one request."""
    return await dead_letters.replay_chosen(sync, actor, choice)


@admin.post("/dead-letters/discard", responses=documentation.DEAD_LETTERS_CHANGE)
async def discard_dead_letters(sync: Sync, choice: Choice, actor: Actor = UNNAMED) -> Discarded:
    """Discard the letters that are chosen, a bounded number in one request."""
    return await dead_letters.discard_chosen(sync, actor, choice)


@admin.get("/phase", responses=documentation.ADMIN)
async def read_phase(sync: Sync) -> CutoverState:
    """Show where the cutover is: its phase, the gates of the next one, and what going back would lose."""
    return await phase.read_phase(sync)


@admin.post("/phase/advance", responses=documentation.PHASE_TURN)
async def advance_phase(sync: Sync, asked: Advance | None = None, actor: Actor = UNNAMED) -> TurnedPhase:
    """Advance by one phase, as `python -m worker.phase advance` does; its gates are looked at in the turn."""
    return await phase.advance(sync, actor, asked or Advance())


@admin.post("/phase/back", responses=documentation.PHASE_TURN)
async def go_back_a_phase(sync: Sync, asked: GoBack | None = None, actor: Actor = UNNAMED) -> TurnedPhase:
    """Go back by one phase, as `python -m worker.phase back` does; there is no gate."""
    return await phase.back(sync, actor, asked or GoBack())
