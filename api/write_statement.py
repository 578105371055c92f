"""The statement of a write: access, row, activity and event in one round trip, which is one transaction.

Both statements have the same parameters: $1 project, $2 caller, $3 collection, $4 values as a JSON object,
$5 event type, $6 traceparent, $7 to $10 the activity's id, type, verb and metadata. Both return one row,
whatever they did: whether the caller has access and, where something was written, the collection's row and
the event's id.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from api.access import HAS_ACCESS, refuse_nul
from api.gate.errors import AccessDeniedError, CollectionNotFoundError
from shared.events import PAYLOAD_VERSION, EventType, Source
from shared.projection import COLUMNS, PAYLOAD
from shared.traceparent import current_traceparent

Written = Mapping[str, Any]  # ANSWERED and event_id

ACTIVITIES = {
    EventType.CREATED: ("collection_created", "Created"),
    EventType.UPDATED: ("collection_updated", "Updated"),
    EventType.DELETED: ("collection_deleted", "Deleted"),
}

# What the answer, the activity and the event show of the row.
SHOWN = (
    "collection_id", "project_id", "collection_name", "description", "created_by", "created_at", "updated_at",
    "color", "icon", "sort_order", *(column.legacy for column in COLUMNS),
)  # fmt: skip
WRITTEN = ", ".join(f"collections.{name}" for name in dict.fromkeys(SHOWN))
# The times as texts: Python has no year 10000, which would fail a write that is committed.
ANSWERED = """
        collection_id, collection_name, description, created_by, to_json(created_at) AS created_at,
        to_json(updated_at) AS updated_at, color, icon, sort_order"""
TEXTS = ("collection_name", "description", "color", "icon", "collection_purpose")
FLAGS = ("auto_update", "is_active")
LISTS = ("linked_hypothesis_ids", "linked_question_ids")  # JSON

PERMITTED = f"permitted AS MATERIALIZED (SELECT {HAS_ACCESS} AS allowed)"
VALUES = "json_populate_record(NULL::collections, $4) AS new"  # NULL where no value is given
LOGGED = """logged AS (
        INSERT INTO activity_logs
            (activity_id, project_id, user_id, activity_type, description, activity_metadata)
        SELECT $7, project_id, $2, $8, $9::text || ' collection ''' || collection_name || '''', $10::json
        FROM written
    )"""
# Ids are drawn for what comes out of `written`, and that is new or locked: for each collection the order of
# ids is the order of commits.
APPENDED = f"""appended AS (
        INSERT INTO outbox_events (aggregate_id, event_type, source, payload, traceparent, schema_version)
        SELECT collection_id, $5, '{Source.API}', {PAYLOAD}, $6::text, {PAYLOAD_VERSION}
        FROM written
        RETURNING id AS event_id
    )"""  # noqa: S608 - constants
ANSWER = f"""
    SELECT allowed, event_id, {ANSWERED}
    FROM permitted LEFT JOIN written ON true LEFT JOIN appended ON true"""  # noqa: S608 - constants

# The database sets both timestamps, to the same time.
INSERTED = f"""
        INSERT INTO collections (
            collection_id, project_id, created_by, is_active, sort_order,
            {", ".join(TEXTS + LISTS)}, auto_update
        )
        SELECT
            $3, $1, $2, true, 0,
            {", ".join(f"new.{name}" for name in TEXTS + LISTS)}, new.auto_update
        FROM permitted, {VALUES}
        WHERE permitted.allowed"""  # noqa: S608 - constants
CREATE = f"""
    WITH {PERMITTED}, written AS ({INSERTED}
        RETURNING {WRITTEN}
    ), {LOGGED}, {APPENDED}
    {ANSWER}
"""

# Lists of strings that have a jsonb, which is how they are compared. Whatever else others stored, such as
# `["\u0000"]`, which has none, is no list that a request could give.
STRING = r'"([^"\\]|\\["\\/bfnrt]|\\u(?!0000|[dD][89a-fA-F])....|\\u[dD][89abAB]..\\u[dD][c-fC-F]..)*"'
LIST_OF_STRINGS = rf"^\s*\[(\s*{STRING}\s*,?)*\s*\]\s*$"


def _sets(name: str) -> str:
    return f"{name} = coalesce(new.{name}, collections.{name})"


def _differs(name: str) -> str:
    if name in LISTS:
        return f"""(new.{name} IS NOT NULL AND CASE WHEN locked.{name}::text ~ '{LIST_OF_STRINGS}'
                THEN locked.{name}::jsonb <> new.{name}::jsonb ELSE true END)"""
    return f"coalesce(new.{name}, locked.{name}) IS DISTINCT FROM locked.{name}"


CHANGEABLE = TEXTS + FLAGS + LISTS

# The row is locked, and changed where a value differs. Whatever we waited for is seen: PostgreSQL reads a row
# again when it has got its lock. FOR NO KEY UPDATE: the worker's foreign-key check of the same row does not
# wait for us. Not now(): that is when we began to wait. Served by collections_pkey, and never by the index of
# projects, which does not know `project_id || ''`: a plan that was made while the table was empty would read
# every collection of the project for as long as its connection lives.
CHANGE = f"""
    WITH {PERMITTED}, locked AS MATERIALIZED (
        SELECT {", ".join(dict.fromkeys(SHOWN + CHANGEABLE))}
        FROM collections
        WHERE (SELECT allowed FROM permitted)
            AND collection_id = $3 AND project_id || '' = $1 AND is_active
        FOR NO KEY UPDATE
    ), changed AS (
        UPDATE collections
        SET {", ".join(map(_sets, CHANGEABLE))}, updated_at = clock_timestamp()
        FROM locked, {VALUES}
        WHERE collections.collection_id = locked.collection_id
            AND ({" OR ".join(map(_differs, CHANGEABLE))})
        RETURNING {WRITTEN}
    ), written AS MATERIALIZED (
        SELECT * FROM changed
        UNION ALL
        SELECT {WRITTEN} FROM locked AS collections WHERE NOT EXISTS (SELECT FROM changed)
    ), {LOGGED}, {APPENDED}
    {ANSWER}
"""  # noqa: S608 - constants


@dataclass(frozen=True)
class Write:
    """What a caller wants to be done to one collection of a project.

    Of a collection that is there only the values that are given are set, and null is none; where nothing
    differs the row stays as it is, `updated_at` included. A creation with a key is carried out once.
    """

    event_type: EventType
    caller: str
    project_id: str
    collection_id: str
    values: Mapping[str, Any]
    key: str | None = None


async def carry_out(connection: asyncpg.Connection, wanted: Write) -> Written:
    """Write the row, the activity and the event, and return the row as it is now, with its event's id.

    It is all there when this returns, unless the caller has a transaction open. The event carries the trace
    that this code runs in, if any.

    Raises:
        AccessDeniedError, CollectionNotFoundError: and nothing was written.

    """
    statement = CREATE if wanted.event_type is EventType.CREATED else CHANGE
    row: Written = await connection.fetchrow(statement, *parameters(wanted))
    if not row["allowed"]:
        raise AccessDeniedError
    if row["event_id"] is None:
        raise CollectionNotFoundError
    return row


def parameters(wanted: Write) -> tuple[str | None, ...]:
    """Return what $1 to $10 stand for.

    Raises:
        AccessDeniedError: an identifier holds a NUL character.

    """
    refuse_nul(wanted.project_id, wanted.caller, wanted.collection_id)
    return (
        wanted.project_id,
        wanted.caller,
        wanted.collection_id,
        json.dumps(wanted.values),
        wanted.event_type,
        current_traceparent(),
        str(uuid.uuid4()),
        *ACTIVITIES[wanted.event_type],
        json.dumps({"collection_id": wanted.collection_id}),
    )
