"""What the capture is made of: one function, and four triggers on `collections`.

A deferred constraint trigger runs when the writer's transaction ends, under the lock of the row it wrote.
So it sees all that the transaction appended, before or after its write, and the id that it draws is newer
than that of any event whose state the row has overwritten.
"""

import hashlib

from shared.capture import FUNCTION, OPERATIONS
from shared.events import PAYLOAD_VERSION, EventType, Source
from shared.place import Place
from shared.projection import COLUMNS, PAYLOAD, legacy_names_of
from shared.tables.outbox import TRACEPARENT_SHAPE

LAST_ID = 2**63 - 1
TRACEPARENT_SETTING = "collection_sync.traceparent"

REFUSED = "collections was written past the outbox: no event of this transaction carries the new state"
INSTEAD = (
    "Write through the API, or append the event in the same transaction: shared.outbox.append_event, or the"
    " statement in docs/how-to/adopt-in-a-monolith.md."
)

OLD_PAYLOAD, NEW_PAYLOAD = (
    "jsonb_build_object('project_id', {}.project_id, {})".format(
        record, ", ".join(f"'{column.name}', {record}.{column.legacy}" for column in COLUMNS)
    )
    for record in ("OLD", "NEW")
)
KEYS = ", ".join(f"'{name}'" for name in ("project_id", *(c.name for c in COLUMNS if not c.is_new)))

# What an event would say of a row has changed: its key, its home, whether it is active, or, while it is, a
# projected column.
SAYS_OTHERWISE = f"""(
        OLD.collection_id IS DISTINCT FROM NEW.collection_id
        OR OLD.project_id IS DISTINCT FROM NEW.project_id
        OR (OLD.is_active IS TRUE) <> (NEW.is_active IS TRUE)
        OR NEW.is_active AND ROW ({legacy_names_of("OLD")}) IS DISTINCT FROM ROW ({legacy_names_of("NEW")})
    )"""
# PostgreSQL parses and plans these anew for each statement, so updates are judged by the function. That of
# DELETE, which the API never sends, names what is projected: a column that a trigger names cannot be dropped.
WHEN = {
    "insert": "WHEN (NEW.is_active)",
    "update": "",
    "delete": f"WHEN (OLD.is_active AND num_nulls(OLD.project_id, {legacy_names_of('OLD')}) >= 0)",
}


def newest_event(collection: str, place: Place) -> str:
    """Return how to read the collection's newest event, with the transaction that appended it.

    Served by outbox_events_of_aggregate: with `aggregate_id =`, a plan made while the outbox was empty may
    walk backwards through all of it.
    """
    return f"""
            SELECT event_type, payload, xmin AS appended_by
            FROM {place.ours}.outbox_events
            WHERE (aggregate_id, id) >= ({collection}, 0) AND (aggregate_id, id) <= ({collection}, {LAST_ID})
            ORDER BY aggregate_id DESC, id DESC LIMIT 1"""  # noqa: S608 - constants, and names that were quoted


def function(place: Place) -> str:
    """Return the statement that makes the function, which has the rights of its owner and of no search path.

    For each row that changed: nothing, where an event would not say otherwise than before, or the newest
    event of its collection is of this very transaction and says what the row says now; otherwise what the
    mode is. Savepoints have transaction ids of their own, so an event is this transaction's where it is
    visible although its transaction is still in progress.

    Most writes are over after one look: their event says what they wrote. If that is not what the row says
    now, a later write of this transaction is looked at as well. So nothing is read that NEW holds already,
    and nothing is declared with a value that only the others need.

    Served by collections_pkey, and as `newest_event` says.
    """
    return f"""
CREATE OR REPLACE FUNCTION {place.ours}.{FUNCTION}() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off
AS $capture$
DECLARE
    chosen text;
    touched text;
    keys text[];
    said_type text; said jsonb; said_by bigint;
    wanted_type text; wanted jsonb;
    this_one bigint;
    traceparent text;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF {SAYS_OTHERWISE} IS NOT TRUE THEN
            RETURN NULL;
        END IF;
    END IF;
    IF NEW.is_active AND (TG_OP = 'INSERT' OR OLD.collection_id = NEW.collection_id) AND EXISTS (
        SELECT FROM ({newest_event("NEW.collection_id", place)}
        ) AS newest
        WHERE appended_by = pg_current_xact_id()::xid
            AND event_type <> '{EventType.DELETED}' AND payload = {NEW_PAYLOAD}
    ) THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'TRUNCATE' THEN
        SELECT mode INTO chosen FROM {place.ours}.capture_settings WHERE singleton;
        IF chosen = 'refuse' THEN
            RAISE EXCEPTION USING ERRCODE = 'restrict_violation', TABLE = 'collections',
                MESSAGE = 'collections was truncated past the outbox', HINT = 'Delete its rows one by one.';
        ELSIF chosen IS NOT NULL THEN
            INSERT INTO {place.ours}.captured_writes (role, application, operation)
            VALUES (session_user, current_setting('application_name'), 'truncate');
        END IF;
        RETURN NULL;
    END IF;
    this_one := pg_current_xact_id()::text::bigint;
    traceparent := current_setting('{TRACEPARENT_SETTING}', true);
    IF TG_OP = 'INSERT' THEN keys := ARRAY[NEW.collection_id];
    ELSIF TG_OP = 'DELETE' OR OLD.collection_id = NEW.collection_id THEN keys := ARRAY[OLD.collection_id];
    ELSE keys := ARRAY[OLD.collection_id, NEW.collection_id];
    END IF;
    FOREACH touched IN ARRAY keys LOOP
        SELECT
            CASE
                WHEN is_active IS NOT TRUE THEN '{EventType.DELETED}'
                WHEN TG_OP = 'INSERT' OR touched <> OLD.collection_id THEN '{EventType.CREATED}'
                ELSE '{EventType.UPDATED}'
            END,
            {PAYLOAD}
        INTO wanted_type, wanted
        FROM {place.legacy}.collections WHERE collection_id = touched;
        IF NOT FOUND THEN
            CONTINUE WHEN TG_OP = 'INSERT' OR touched <> OLD.collection_id;  -- it was there in between only
            wanted_type := '{EventType.DELETED}';
            wanted := {OLD_PAYLOAD};
        END IF;
        SELECT event_type, payload, appended_by::text::bigint INTO said_type, said, said_by
        FROM ({newest_event("touched", place)}
        ) AS newest;
        said_by := (said_by - this_one) & 4294967295;  -- transaction ids go round
        IF (said_type = '{EventType.DELETED}') = (wanted_type = '{EventType.DELETED}')
            AND said_by < 2147483648
            AND said -> 'project_id' = wanted -> 'project_id'
            AND (wanted_type = '{EventType.DELETED}' OR said ?& ARRAY[{KEYS}] AND (wanted || said) @> wanted)
        THEN
            CONTINUE WHEN pg_xact_status((this_one + said_by)::text::xid8) = 'in progress';
        END IF;
        SELECT mode INTO chosen FROM {place.ours}.capture_settings WHERE singleton;
        IF chosen = 'refuse' THEN
            RAISE EXCEPTION USING ERRCODE = 'restrict_violation', TABLE = 'collections',
                MESSAGE = '{REFUSED}', DETAIL = format('Collection %s.', touched), HINT = '{INSTEAD}';
        ELSIF chosen = 'append' THEN
            INSERT INTO {place.ours}.outbox_events
                (aggregate_id, event_type, source, payload, traceparent, schema_version)
            VALUES (
                touched, wanted_type, '{Source.CAPTURE}', wanted,
                CASE WHEN {TRACEPARENT_SHAPE} THEN traceparent END,
                {PAYLOAD_VERSION}
            );
        END IF;
        IF chosen IS NOT NULL THEN
            INSERT INTO {place.ours}.captured_writes (collection_id, role, application, operation)
            VALUES (touched, session_user, current_setting('application_name'), lower(TG_OP));
        END IF;
    END LOOP;
    RETURN NULL;
END
$capture$"""  # noqa: S608 - constants, and names that were quoted


def trigger(operation: str, place: Place) -> str:
    """Return the statement that makes the trigger for insert, update, delete or truncate."""
    table, run = f"{place.legacy}.collections", f"EXECUTE FUNCTION {place.ours}.{FUNCTION}()"
    if operation == "truncate":
        return f"CREATE TRIGGER {FUNCTION}_truncate BEFORE TRUNCATE ON {table} {run}"
    return (
        f"CREATE CONSTRAINT TRIGGER {FUNCTION}_{operation} AFTER {operation.upper()} ON {table}"
        f"\n    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW {WHEN[operation]}\n    {run}"
    )


def digest(place: Place) -> str:
    """Return what changes with the function and the triggers, so that another release's are known by it."""
    whole = "\n".join([function(place), *(trigger(operation, place) for operation in OPERATIONS)])
    return hashlib.sha256(whole.encode()).hexdigest()[:16]
