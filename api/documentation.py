"""What the OpenAPI document says about errors, with the very texts that the service sends."""

from http import HTTPStatus
from typing import Any

from api.admin.backfills import BackfillConflict
from api.admin.dead_letters import CLOSED, HOMELESS
from api.admin.phase import PhaseHeldError
from api.admin.phase_models import PhaseConflict
from api.admin.verification import EXAMPLE_NO_WORKER, VerificationUnderWay
from api.gate.body import BODY_SECONDS, MAX_BODY_BYTES
from api.gate.errors import (
    FAILED_DETAIL,
    UNAVAILABLE_DETAIL,
    AccessDeniedError,
    AuditNotFoundError,
    BackfillNotFoundError,
    BodyTooLargeError,
    CollectionNotFoundError,
    DeadLetterNotFoundError,
    ForeignSiteError,
    InvalidRequest,
    OverloadedError,
    Problem,
    ProjectNotFoundError,
    ReadOnlyModeError,
    ReusedKeyError,
    SeveralCallersError,
    SeveralKeysError,
    SlowBodyError,
    UnknownAdminError,
    UnknownGatewayError,
)

UNPARSABLE_DETAIL = "There was an error parsing the body"  # FastAPI's own

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


RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
INVALID: Responses = {
    HTTPStatus.UNPROCESSABLE_ENTITY: {
        "description": "The request is not valid. Nothing else was looked at.",
        "model": InvalidRequest,
        "content": {"application/json": {"example": EXAMPLE_INVALID}},
    },
}
FAULTS: Responses = {
    HTTPStatus.INTERNAL_SERVER_ERROR: problem("A fault of the service.", FAILED_DETAIL),
    HTTPStatus.SERVICE_UNAVAILABLE: problem(
        "PostgreSQL is away or busy. Try again after the seconds in Retry-After.",
        UNAVAILABLE_DETAIL,
        OverloadedError.detail,
    )
    | {"headers": RETRY_AFTER},
}
BODY: Responses = {
    HTTPStatus.BAD_REQUEST: problem("The body is not UTF-8, or nested too deeply.", UNPARSABLE_DETAIL),
    HTTPStatus.REQUEST_TIMEOUT: problem(
        f"The body did not arrive within {BODY_SECONDS:.0f} seconds. The connection is closed.",
        SlowBodyError.detail,
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: problem(
        f"The body is longer than {MAX_BODY_BYTES} bytes. The connection is closed.", BodyTooLargeError.detail
    ),
}
READ: Responses = (
    INVALID
    | FAULTS
    | {
        HTTPStatus.BAD_REQUEST: problem(
            "The request names more than one caller.", SeveralCallersError.detail
        ),
        HTTPStatus.UNAUTHORIZED: problem(
            "The service requires a gateway token, and the request has none or another.",
            UnknownGatewayError.detail,
        ),
        HTTPStatus.FORBIDDEN: problem(
            "The caller has no access to the project, or there is none.", AccessDeniedError.detail
        ),
    }
)
READ_ONE: Responses = READ | {
    HTTPStatus.NOT_FOUND: problem(
        "The project has no collection of that id, deleted ones included.", CollectionNotFoundError.detail
    ),
}
LINK = {"Link": {"description": 'The next page: `<…>; rel="next"`.', "schema": {"type": "string"}}}
LIST: Responses = READ | {
    HTTPStatus.OK: {"headers": LINK},
    HTTPStatus.NOT_FOUND: problem(
        "The project has no collection of the id after which the page is to begin.",
        CollectionNotFoundError.detail,
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
BODY_OF_ONE: Responses = BODY | {
    HTTPStatus.BAD_REQUEST: problem(
        "The request names more than one caller, or its body is not UTF-8, or nested too deeply.",
        SeveralCallersError.detail,
        UNPARSABLE_DETAIL,
    ),
}
CREATE: Responses = (
    WRITE
    | BODY
    | {
        HTTPStatus.BAD_REQUEST: problem(
            "The request names more than one caller or key, or its body is not UTF-8, or nested too deeply.",
            SeveralCallersError.detail,
            SeveralKeysError.detail,
            UNPARSABLE_DETAIL,
        ),
        HTTPStatus.UNPROCESSABLE_ENTITY: {
            "description": "The request is not valid, or its Idempotency-Key is another's.",
            "model": InvalidRequest | Problem,
            "content": {
                "application/json": {
                    "examples": {
                        "invalid": {"value": EXAMPLE_INVALID},
                        "reused": {"value": {"detail": ReusedKeyError.detail}},
                    }
                }
            },
        },
    }
)
CHANGE: Responses = WRITE_TO_ONE | BODY_OF_ONE

NOT_HERE = "No admin token is configured, so these endpoints are closed"


def admin(or_else: str = "", *details: str) -> Responses:
    """Describe what every admin endpoint may answer, and for what else this one answers 404."""
    description = f"{NOT_HERE}{or_else}."
    return FAULTS | {
        HTTPStatus.UNAUTHORIZED: problem(
            "The request has no admin token, or another.", UnknownAdminError.detail
        ),
        HTTPStatus.FORBIDDEN: problem(
            "A browser sent it for a page of another site.", ForeignSiteError.detail
        ),
        HTTPStatus.NOT_FOUND: problem(description, HTTPStatus.NOT_FOUND.phrase, *details),
    }


ADMIN: Responses = admin()
ADMIN_READ: Responses = INVALID | ADMIN


CONFLICT: Responses = {
    HTTPStatus.CONFLICT: {
        "description": "The state of the backfill does not allow it. Nothing was changed.",
        "model": BackfillConflict,
    }
}
VERIFICATION: Responses = (
    INVALID
    | admin("; or there is no such audit of all projects", AuditNotFoundError.detail)
    | {
        HTTPStatus.ACCEPTED: {
            "description": "The audit has not ended in time. Ask for it again.",
            "model": VerificationUnderWay,
            "headers": RETRY_AFTER,
        },
        HTTPStatus.SERVICE_UNAVAILABLE: problem(
            "No worker carries out the audit, or PostgreSQL is away or busy. Try again after the seconds in"
            " Retry-After.",
            EXAMPLE_NO_WORKER,
            UNAVAILABLE_DETAIL,
            OverloadedError.detail,
        )
        | {"headers": RETRY_AFTER},
    }
)
BACKFILL_START: Responses = (
    INVALID | BODY | CONFLICT | admin("; or there is no such project", ProjectNotFoundError.detail)
)
BACKFILL_READ: Responses = admin("; or no backfill was ever started", BackfillNotFoundError.detail)
BACKFILL_CHANGE: Responses = INVALID | CONFLICT | admin()
DEAD_LETTERS: Responses = INVALID | admin()
DEAD_LETTER_GROUPS: Responses = admin()
DEAD_LETTER: Responses = INVALID | admin("; or there is no such letter", DeadLetterNotFoundError.detail)
DEAD_LETTERS_CHANGE: Responses = DEAD_LETTER | BODY
DEAD_LETTER_CHANGE: Responses = DEAD_LETTER | {
    HTTPStatus.CONFLICT: problem(
        "The letter is closed, or there is nothing to replay. Nothing was changed.",
        CLOSED.format(letter_id=4711, state="superseded"),
        HOMELESS.format(letter_id=4711),
    )
}
PHASE_TURN: Responses = (
    INVALID
    | BODY
    | admin()
    | {
        HTTPStatus.CONFLICT: {
            "description": "Gates are not met, there is no such phase, or it was turned since it was seen."
            " Nothing was turned.",
            "model": PhaseConflict,
        },
        HTTPStatus.SERVICE_UNAVAILABLE: problem(
            "Another session turns the phase, or PostgreSQL is away or busy. Try again after the seconds in"
            " Retry-After.",
            PhaseHeldError.detail,
            UNAVAILABLE_DETAIL,
            OverloadedError.detail,
        )
        | {"headers": RETRY_AFTER},
    }
)
