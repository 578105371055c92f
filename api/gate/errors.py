"""What a request gets when it is refused or fails: always `{"detail": ...}`, never a driver's text."""

import traceback
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, ClassVar

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from api.gate.echo import echoable
from api.gate.identification import identification
from shared.postgres.advice import advice_on
from shared.postgres.faults import NOT_NULL_VIOLATION, hides_rows, is_environmental, is_transient, sqlstate

logger = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS = 1


class RefusalError(Exception):
    """A request that is understood and not granted; each kind has one answer. Nothing was changed.

    `more` stands beside the detail, for those whose answer says more than why.
    """

    status: ClassVar[HTTPStatus]
    detail: str
    headers: Mapping[str, str] = MappingProxyType({})
    more: Mapping[str, object] = MappingProxyType({})


class AccessRefusedError(RefusalError):
    """The request shows no right to what it asks for; a log line says so."""


class UnknownGatewayError(AccessRefusedError):
    """The request did not come through the gateway that vouches for its User-ID."""

    status = HTTPStatus.UNAUTHORIZED
    detail = "Missing or wrong gateway token"
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class SeveralCallersError(AccessRefusedError):
    """The request names two callers, so none."""

    status = HTTPStatus.BAD_REQUEST
    detail = "More than one User-ID"


class SeveralKeysError(RefusalError):
    """The request has several keys by which to know it again, so none."""

    status = HTTPStatus.BAD_REQUEST
    detail = "More than one Idempotency-Key"


class ReusedKeyError(RefusalError):
    """The request has the key of one that asked for something else."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    detail = "This Idempotency-Key belongs to a request with other values. Send a new one."


class UnknownAdminError(AccessRefusedError):
    """The request does not carry the administrators' token."""

    status = HTTPStatus.UNAUTHORIZED
    detail = "Missing or wrong admin token"
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class ForeignSiteError(RefusalError):
    """A browser sent the request for a page of another site."""

    status = HTTPStatus.FORBIDDEN
    detail = "Not for pages of other sites"


class ReadOnlyModeError(RefusalError):
    """Writes are switched off."""

    status = HTTPStatus.FORBIDDEN
    detail = "Collections are in read-only mode. Write operations are temporarily disabled."


class AccessDeniedError(AccessRefusedError):
    """The caller neither owns the project nor works on it, or there is no such project."""

    status = HTTPStatus.FORBIDDEN
    detail = "Access denied"


class CollectionNotFoundError(RefusalError):
    """The project has no active collection of that id."""

    status = HTTPStatus.NOT_FOUND
    detail = "Collection not found"


class ProjectNotFoundError(RefusalError):
    """There is no project of that id; only administrators get this answer."""

    status = HTTPStatus.NOT_FOUND
    detail = "Project not found"


class AuditNotFoundError(RefusalError):
    """There is no audit of that id, or it is of one project only and verifies nothing else."""

    status = HTTPStatus.NOT_FOUND
    detail = "Audit not found"


class BackfillNotFoundError(RefusalError):
    """No backfill was ever started."""

    status = HTTPStatus.NOT_FOUND
    detail = "No backfill has run yet"


class DeadLetterNotFoundError(RefusalError):
    """There is no dead letter of that id, or it was removed in time."""

    status = HTTPStatus.NOT_FOUND
    detail = "Dead letter not found"


class BodyTooLargeError(RefusalError):
    """The body is longer than any that makes sense here. What is left of it is not read."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    detail = "The body is too large"
    headers = MappingProxyType({"Connection": "close"})


class SlowBodyError(RefusalError):
    """The body did not arrive in time. What is left of it is not read."""

    status = HTTPStatus.REQUEST_TIMEOUT
    detail = "The body did not arrive in time"
    headers = MappingProxyType({"Connection": "close"})


class OverloadedError(RefusalError):
    """As many requests are at work, and waiting, as this process takes on."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    detail = "Too many requests at the moment. Try again."
    headers = MappingProxyType({"Retry-After": str(RETRY_AFTER_SECONDS)})


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


class FieldProblem(BaseModel):
    """One field that is not as it should be."""

    type: str
    loc: list[str | int]
    msg: str
    input: Any
    ctx: dict[str, Any] | None = None


class InvalidRequest(BaseModel):
    """Every field of a request that is not as it should be."""

    detail: list[FieldProblem]


# Of what the server refuses whatever the row: its resources, its limits, its state, its files; and what the
# schema lacks, our right to it, or another's column that we do not fill.
UNAVAILABLE_CLASSES = frozenset({"42", "53", "54", "55", "58"})
UNAVAILABLE_DETAIL = "The database is not available at the moment. Try again."
FAILED_DETAIL = "Internal Server Error"
OTHER = "other"  # no route of ours: its path is not repeated


def is_unavailable(error: Exception) -> bool:
    """Return whether the server, and no request, must change before it takes what was asked of it."""
    code = sqlstate(error) or ""
    return hides_rows(error) or (
        is_environmental(error) and (code == NOT_NULL_VIOLATION or code[:2] in UNAVAILABLE_CLASSES)
    )


def answer(status: int, detail: object, headers: Mapping[str, str], **more: object) -> JSONResponse:
    return JSONResponse({"detail": detail, **more}, status_code=status, headers=headers)


def answer_to(error: Exception, request: Request) -> JSONResponse:
    """Turn whatever ended a request into its answer; log what is not the client's doing."""
    match error:
        case RefusalError():
            if isinstance(error, AccessRefusedError):
                logger.info("access_refused", status=int(error.status), **description(error, request))
            return answer(error.status, error.detail, error.headers, **error.more)
        case RequestValidationError():
            return answer(HTTPStatus.UNPROCESSABLE_ENTITY, echoable(error.errors()), {})
        case HTTPException():
            return answer(error.status_code, error.detail, error.headers or {})
        case _ if is_transient(error) or is_unavailable(error):
            log = logger.warning if is_transient(error) else logger.error
            hint = {"hint": advice} if (advice := advice_on(error)) else {}
            log("database_unavailable", **failure(error, request), **hint)
            return answer(
                HTTPStatus.SERVICE_UNAVAILABLE,
                UNAVAILABLE_DETAIL,
                {"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
        case _:
            frames = traceback.format_tb(error.__traceback__)
            logger.error("request_failed", **failure(error, request), frames="".join(frames))
            return answer(HTTPStatus.INTERNAL_SERVER_ERROR, FAILED_DETAIL, {})


def failure(error: Exception, request: Request) -> dict[str, str | None]:
    return {**description(error, request), "sqlstate": sqlstate(error)}


def description(error: Exception, request: Request) -> dict[str, str | None]:
    """Return what failed and where, without the error's text: that may quote what users wrote."""
    return {
        "error": type(error).__name__,
        "method": request.method,
        "route": getattr(request.scope.get("route"), "path", OTHER),
        **identification(),
    }
