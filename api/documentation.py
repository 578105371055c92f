"""What the OpenAPI document says about errors, with the very texts that the service sends."""

from http import HTTPStatus
from typing import Any

from api.errors import (
    FAILED_DETAIL,
    UNAVAILABLE_DETAIL,
    AccessDeniedError,
    CollectionNotFoundError,
    ReadOnlyModeError,
    UnknownGatewayError,
)
from api.schemas import InvalidRequest, Problem

Responses = dict[int | str, dict[str, Any]]

EXAMPLE_INVALID = {
    "detail": [
        {
            "type": "string_too_short",
            "loc": ["body", "collection_name"],
            "msg": "String should have at least 1 character",
            "input": "",
            "ctx": {"min_length": 1},
        }
    ]
}


def problem(description: str, *details: str) -> dict[str, Any]:
    """Describe an error response with each of the texts that it may carry."""
    examples = {detail: {"value": {"detail": detail}} for detail in details}
    return {
        "description": description,
        "model": Problem,
        "content": {"application/json": {"examples": examples}},
    }


READ: Responses = {
    HTTPStatus.UNAUTHORIZED: problem(
        "The service requires a gateway token, and the request has none or another.",
        UnknownGatewayError.detail,
    ),
    HTTPStatus.FORBIDDEN: problem(
        "The caller has no access to the project, or there is none.", AccessDeniedError.detail
    ),
    HTTPStatus.UNPROCESSABLE_ENTITY: {
        "description": "The request is not valid. Nothing else was looked at.",
        "model": InvalidRequest,
        "content": {"application/json": {"example": EXAMPLE_INVALID}},
    },
    HTTPStatus.INTERNAL_SERVER_ERROR: problem("A fault of the service.", FAILED_DETAIL),
    HTTPStatus.SERVICE_UNAVAILABLE: problem(
        "PostgreSQL is away or busy. Try again after the seconds in Retry-After.", UNAVAILABLE_DETAIL
    )
    | {"headers": {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}},
}
READ_ONE: Responses = READ | {
    HTTPStatus.NOT_FOUND: problem(
        "The project has no collection of that id, deleted ones included.", CollectionNotFoundError.detail
    ),
}
WRITE: Responses = READ | {
    HTTPStatus.FORBIDDEN: problem(
        "The caller has no access to the project, or writes are switched off.",
        AccessDeniedError.detail,
        ReadOnlyModeError.detail,
    ),
}
WRITE_TO_ONE: Responses = WRITE | {
    HTTPStatus.NOT_FOUND: problem(
        "The project has no active collection of that id.", CollectionNotFoundError.detail
    ),
}
