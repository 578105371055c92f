"""A creation that its client may ask for again: `Idempotency-Key`, kept in the statement of the write.

Two requests with one key cannot both be committed: the second waits for the first at the key's unique index,
fails with all that it wrote, and is asked again. Then it finds the answer that was kept.
"""

import hashlib
import json
from typing import Annotated

import asyncpg
from fastapi import Header, Request

from api.gate.errors import AccessDeniedError, ReusedKeyError, SeveralKeysError
from api.write_statement import (
    ANSWER,
    ANSWERED,
    APPENDED,
    INSERTED,
    LOGGED,
    PERMITTED,
    WRITTEN,
    Write,
    Written,
    parameters,
)

HEADER = "Idempotency-Key"
LONGEST_KEY = 255
EXAMPLE = "8e03978e-40d5-43dd-bc93-6894a57f9324"
UNIQUE = "idempotency_keys_pkey"

# CREATE with two more parameters: $11 the key and $12 the fingerprint. Where the key is known nothing is
# written. Served by idempotency_keys_pkey.
CREATE_ONCE = f"""
    WITH {PERMITTED}, kept AS MATERIALIZED (
        SELECT fingerprint = $12 AS is_same, answer
        FROM permitted, idempotency_keys
        WHERE allowed AND user_id = $2 AND project_id = $1 AND key = $11
    ), written AS ({INSERTED} AND NOT EXISTS (SELECT FROM kept)
        RETURNING {WRITTEN}
    ), {LOGGED}, {APPENDED}, keeping AS (
        INSERT INTO idempotency_keys (user_id, project_id, key, fingerprint, answer)
        SELECT $2, $1, $11, $12, (SELECT to_json(answered) FROM (SELECT {ANSWERED}) AS answered)
        FROM written
    )
    {ANSWER.replace("event_id", "is_same, answer, event_id")} LEFT JOIN kept ON true
"""  # noqa: S608 - constants

Key = Annotated[
    str | None,
    Header(
        alias=HEADER,
        min_length=1,
        max_length=LONGEST_KEY,
        pattern="^[ -~]+$",
        description="Printable ASCII of the client's choice, new for each collection. The same request with"
        " the same key within 24 hours creates nothing and gets the first answer again.",
        examples=[EXAMPLE],
    ),
]


async def the_one_key(request: Request, key: Key = None) -> str | None:
    """Return the request's key, if it has one.

    Raises:
        SeveralKeysError: it has several.

    """
    if len(request.headers.getlist(HEADER)) > 1:
        raise SeveralKeysError
    return key


def fingerprint(wanted: Write) -> bytes:
    """Digest the values that were given: a field of a later release, left out, makes no other request."""
    given = {name: value for name, value in wanted.values.items() if value is not None}
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).digest()


async def carry_out_once(connection: asyncpg.Connection, wanted: Write) -> Written:
    """Create the collection and return its row, or the row as it was first answered, with no event's id.

    It is one round trip, and a second one for a request that met another with its key under way.

    Raises:
        AccessDeniedError: and nothing was written or kept.
        ReusedKeyError: the key is another request's.

    """
    try:
        row = await _create_once(connection, wanted)
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != UNIQUE:
            raise
        row = await _create_once(connection, wanted)
    if not row["allowed"]:
        raise AccessDeniedError
    if row["is_same"] is None:
        return row
    if not row["is_same"]:
        raise ReusedKeyError
    return {**row["answer"], "event_id": None}


async def _create_once(connection: asyncpg.Connection, wanted: Write) -> Written:
    row: Written = await connection.fetchrow(
        CREATE_ONCE, *parameters(wanted), wanted.key, fingerprint(wanted)
    )
    return row
