"""The plain way: what nearly every live write needs, by one statement, which is its own transaction."""

import time
from collections.abc import Collection

import asyncpg

from shared.postgres.database import KeptConnection
from shared.projection import NAMES, VALUES
from worker.relay.batch import Batch
from worker.relay.claim import CLAIMED, FIRST, ClaimedEvent, Lanes, Position, claim_arguments
from worker.relay.settle import APPLIED

FEW = 10  # events; more are cheaper the ordinary way

# Served by outbox_events_claim_order, and by the primary keys and the target's unique key; the limits, and
# the arrays beside the joins, change no result: see RETIRE_ROWS.
#
# An event is plain when it is the only one of its collection here, and either brings what neither guard nor
# target know, or finds its home row as the guard left it. What another session has locked is not plain.
# Of guard and home row the lock gives the newest version, and holds it: so this is as good as the statements
# of worker/relay/apply.py, each of which sees what was committed before it. What came after this statement's
# snapshot meets a unique key: a home row leaves the event as it is, and a guard undoes the statement.
#
# Each step takes what the one before it did, so of what the target silently drops nothing is kept. Where
# anything that was written is not acknowledged in the end, the division by zero undoes the statement.
SETTLE_PLAIN = f"""
    WITH claimed AS MATERIALIZED ({FIRST}    ), event AS MATERIALIZED ({CLAIMED}),
    plain AS MATERIALIZED (
        SELECT
            event.id, event.collection_id, event.project_id, payload, created_at, target.id AS row_id,
            event_type = 'collection.deleted' AS is_deleted
        FROM event
        CROSS JOIN LATERAL (SELECT payload, created_at FROM claimed WHERE id = event.id LIMIT 1) AS state
        LEFT JOIN LATERAL (
            SELECT * FROM applied_versions WHERE collection_id = event.collection_id LIMIT 1
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS guard ON true
        LEFT JOIN LATERAL (
            SELECT id FROM project_collections
            WHERE project_id = event.project_id AND collection_id = event.collection_id LIMIT 1
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS target ON true
        WHERE well_formed AND is_borne_out
            AND NOT EXISTS (
                SELECT FROM event AS other
                WHERE other.collection_id = event.collection_id AND other.id <> event.id
            )
            AND CASE
                WHEN guard.version IS NULL THEN event_type <> 'collection.deleted' AND target.id IS NULL
                ELSE guard.version < event.id AND NOT guard.is_deleted
                    AND guard.project_id = event.project_id AND guard.row_id = target.id
            END
    ), inserted AS (
        INSERT INTO project_collections (project_id, collection_id, {NAMES})
        SELECT project_id, collection_id, {VALUES} FROM plain WHERE row_id IS NULL ORDER BY collection_id
        ON CONFLICT (project_id, collection_id) DO NOTHING
        RETURNING id, collection_id
    ), updated AS (
        UPDATE project_collections AS target SET ({NAMES}) = ROW ({VALUES})
        FROM plain
        WHERE target.id = ANY(ARRAY(SELECT row_id FROM plain)) AND target.id = row_id AND NOT is_deleted
        RETURNING plain.id
    ), retired AS (
        DELETE FROM project_collections AS target USING plain
        WHERE target.id = ANY(ARRAY(SELECT row_id FROM plain)) AND target.id = row_id AND is_deleted
        RETURNING plain.id
    ), begun AS (
        INSERT INTO applied_versions
            (collection_id, version, project_id, is_deleted, found_row, row_id, appended_at, dated_version)
        SELECT collection_id, plain.id, project_id, false, false, inserted.id, created_at, plain.id
        FROM inserted JOIN plain USING (collection_id)
        RETURNING version
    ), advanced AS (
        UPDATE applied_versions AS guard SET
            version = plain.id,
            previous_project_id = NULL,
            is_deleted = plain.is_deleted,
            appended_at = created_at,
            dated_version = plain.id
        FROM plain
        WHERE guard.collection_id = ANY(ARRAY(SELECT collection_id FROM plain))
            AND guard.collection_id = plain.collection_id
            AND plain.id = ANY(ARRAY(SELECT id FROM updated UNION ALL SELECT id FROM retired))
        RETURNING version
    ), acknowledged AS (
        DELETE FROM outbox_events
        WHERE id = ANY(ARRAY(SELECT version FROM begun UNION ALL SELECT version FROM advanced))
        RETURNING id
    )
    SELECT
        date_part('epoch', statement_timestamp()) / (
            cardinality(ARRAY(SELECT id FROM acknowledged)) = cardinality(ARRAY(
                SELECT id FROM inserted UNION ALL SELECT id FROM updated UNION ALL SELECT id FROM retired
            ))
        )::integer AS began_at,
        id = ANY(ARRAY(SELECT id FROM acknowledged)) AS is_settled,
        event.*
    FROM event
    ORDER BY id
"""  # noqa: S608 - made of constants


async def run_plain(
    kept: KeptConnection, limit: int, lanes: Lanes, start: Position, passing_over: Collection[int]
) -> Batch | None:
    """Claim, apply and acknowledge those of the first few events that are plain, in one round trip.

    The others stay as they are: the batch is full then, and `run_once` knows what becomes of them. So it does
    where PostgreSQL refused the statement, or the connection broke, and None is returned.

    Args:
        kept: of an engine as for `run_once`.
        limit: how many events to claim at most; no more than FEW are.
        lanes: where to claim from.
        start: claim only behind this position.
        passing_over: ids of events not to claim; a few.

    """
    limit = min(limit, FEW)
    began = time.perf_counter()
    try:
        async with kept.lent() as connection:
            rows = await connection.fetch(SETTLE_PLAIN, *claim_arguments(limit, lanes, start, passing_over))
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return None
    seconds = time.perf_counter() - began
    if not rows:
        return Batch(claim_seconds=seconds)
    last = ClaimedEvent(*rows[-1][2:])
    settled = [ClaimedEvent(*event) for _, is_settled, *event in rows if is_settled]
    return Batch(
        settled,
        {event.id: APPLIED for event in settled},
        seconds,
        last.appended_at + last.age_ms / 1000 - rows[-1]["began_at"],
        is_full=len(rows) == limit or len(settled) < len(rows),
    )
