"""What a request gets when it is refused or fails: always `{"detail": ...}`, never a driver's text."""

import traceback
from http import HTTPStatus
from typing import ClassVar

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api.echo import echoable
from shared.faults import is_transient, sqlstate

logger = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS = 1


class RefusalError(Exception):
    """A request that is understood and not granted; each kind has one answer. Nothing was changed."""

    status: ClassVar[HTTPStatus]
    detail: ClassVar[str]
    headers: ClassVar[dict[str, str] | None] = None


class UnknownGatewayError(RefusalError):
    """The request did not come through the gateway that vouches for its User-ID."""

    status = HTTPStatus.UNAUTHORIZED
    detail = "Missing or wrong gateway token"
    headers: ClassVar[dict[str, str] | None] = {"WWW-Authenticate": "Bearer"}


class ReadOnlyModeError(RefusalError):
    """Writes are switched off."""

    status = HTTPStatus.FORBIDDEN
    detail = "Collections are in read-only mode. Write operations are temporarily disabled."


class AccessDeniedError(RefusalError):
    """The caller neither owns the project nor works on it, or there is no such project."""

    status = HTTPStatus.FORBIDDEN
    detail = "Access denied"


class CollectionNotFoundError(RefusalError):
    """The project has no active collection of that id."""

    status = HTTPStatus.NOT_FOUND
    detail = "Collection not found"


UNAVAILABLE_DETAIL = "The database is not available at the moment. Try again."
FAILED_DETAIL = "Internal Server Error"


def answer(status: int, detail: object, headers: dict[str, str] | None = None) -> JSONResponse:
    """Build an error response of the one shape that all of ours have."""
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)


def answer_to(error: Exception, request: Request) -> JSONResponse:
    """Turn whatever ended a request into its answer; log what is not the client's doing."""
    match error:
        case RefusalError():
            return answer(error.status, error.detail, error.headers)
        case RequestValidationError():
            return answer(HTTPStatus.UNPROCESSABLE_ENTITY, echoable(error.errors()))
        case HTTPException():
            return answer(error.status_code, error.detail, dict(error.headers or {}))
        case _ if is_transient(error):
            logger.warning("database_unavailable", **description(error, request))
            return answer(
                HTTPStatus.SERVICE_UNAVAILABLE,
                UNAVAILABLE_DETAIL,
                {"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
        case _:
            frames = traceback.format_tb(error.__traceback__)
            logger.error("request_failed", **description(error, request), frames="".join(frames))
            return answer(HTTPStatus.INTERNAL_SERVER_ERROR, FAILED_DETAIL)


def description(error: Exception, request: Request) -> dict[str, str | None]:
    """Say what failed and where without the error's text: that may quote what users wrote."""
    return {
        "error": type(error).__name__,
        "sqlstate": sqlstate(error),
        "method": request.method,
        "route": request.scope["route"].path,
    }
