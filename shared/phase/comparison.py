"""A project's list from both sides, compared by one statement, so on one snapshot.

A writer commits its row and its event together, and a worker the target's row and the event's removal. On one
snapshot, therefore, what differs although no event of its collection waits and no dead letter of it is open
is a mismatch, however slow the workers are. Like the audit, this shares no code with what writes the target.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import asyncpg

from shared.pair import DIFFER, EXPECTED, NAMES
from shared.phase.phases import COMPARED, Phase
from shared.phase.view import LAST_ID

MOST_COLLECTIONS = 2_000  # of a list that is compared
MOST_NAMED = 20
IN_COMPARED = f"phase IN {tuple(map(str, COMPARED))}"

# By migration_phase_pkey. It locks no other table.
LOOK = f"SELECT epoch FROM migration_phase WHERE singleton AND {IN_COMPARED}"  # noqa: S608 - constants


def is_there(table: str, condition: str = "true") -> str:
    """Return whether the table holds a row of the collection that differs, by its index of the collection.

    The bounds of both columns leave PostgreSQL no other index, as in shared/phase/view.py.
    """
    return f"""EXISTS (
                SELECT FROM {table} AS one
                WHERE (one.aggregate_id, one.id) >= (difference.collection_id, 0)
                    AND (one.aggregate_id, one.id) <= (difference.collection_id, {LAST_ID})
                    AND {condition}
                ORDER BY one.aggregate_id, one.id LIMIT 1
            )"""


# $1 project, $2 how many rows of either side at most: of more, nothing is compared. No row: nothing is to be
# compared in this phase. Each part reads the end of the one before, so their times are of their own. The kind
# of what is equal is NULL.
COMPARE = f"""
    WITH phase AS MATERIALIZED (  -- by migration_phase_pkey
        SELECT phase, epoch, falls_back, clock_timestamp() AS began_at
        FROM migration_phase WHERE singleton AND {IN_COMPARED}
    ), legacy AS MATERIALIZED (  -- what is listed before the turn: by idx_collection_project_id
        SELECT collection_id, {EXPECTED}
        FROM collections
        WHERE project_id = $1 AND is_active AND (SELECT began_at FROM phase) IS NOT NULL
        LIMIT $2 + 1
    ), legacy_read AS MATERIALIZED (
        SELECT count(*) AS rows, clock_timestamp() AS ended_at FROM legacy
    ), target AS MATERIALIZED (  -- home rows and links: by the target's unique key
        SELECT collection_id, {NAMES}
        FROM project_collections
        WHERE project_id = $1 AND (SELECT rows FROM legacy_read) <= $2
        LIMIT $2 + 1
    ), target_read AS MATERIALIZED (
        SELECT count(*) AS rows, clock_timestamp() AS ended_at FROM target
    ), pair AS MATERIALIZED (  -- the home of a row of the target alone: by collections_pkey
        SELECT
            coalesce(legacy.collection_id, target.collection_id) AS collection_id,
            CASE
                WHEN target.collection_id IS NULL THEN 'missing'
                WHEN legacy.collection_id IS NOT NULL THEN CASE WHEN {DIFFER} THEN 'mismatched' END
                WHEN (
                    SELECT home.project_id <> $1 FROM collections AS home
                    WHERE home.collection_id = target.collection_id
                ) THEN 'linked'
                ELSE 'orphaned'
            END AS kind
        FROM legacy FULL JOIN target ON target.collection_id = legacy.collection_id
        WHERE (SELECT rows FROM target_read) <= $2
    ), difference AS MATERIALIZED (  -- by outbox_events_of_aggregate and outbox_dead_letters_of_aggregate
        SELECT collection_id, kind,
            {is_there("outbox_events")} AS waits,
            {is_there("outbox_dead_letters", "one.closed_at IS NULL")} AS is_lettered
        FROM pair AS difference
        WHERE kind <> 'linked'
    )
    SELECT phase, epoch, falls_back, target_read.ended_at AS compared_at,
        extract(epoch FROM legacy_read.ended_at - phase.began_at)::float8 AS legacy_seconds,
        extract(epoch FROM target_read.ended_at - legacy_read.ended_at)::float8 AS target_seconds,
        legacy_read.rows > $2 OR target_read.rows > $2 AS is_too_long,
        (SELECT count(*) FROM pair WHERE kind IS DISTINCT FROM 'linked') AS collections,
        EXISTS (SELECT FROM difference WHERE is_lettered) AS is_lettered,
        EXISTS (SELECT FROM difference WHERE waits) AS waits,
        ARRAY(
            SELECT ARRAY[collection_id::text, kind] FROM difference
            WHERE NOT waits AND NOT is_lettered
            ORDER BY collection_id LIMIT {MOST_NAMED}
        ) AS mismatches
    FROM phase CROSS JOIN legacy_read CROSS JOIN target_read
"""  # noqa: S608 - constants


class Outcome(StrEnum):
    """What came of a sampled list: columns of `shadow_counts`. The last two were not compared."""

    MATCHED = "matched"
    MISMATCHED = "mismatched"
    PENDING = "pending"
    LETTERED = "lettered"
    DROPPED = "dropped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A difference that nothing explains. kind: missing, mismatched or orphaned, as the audit says."""

    collection_id: str
    kind: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What both sides of one list showed on one snapshot.

    Args:
        phase: and `epoch`, `falls_back`: as the row said there.
        outcome: matched, mismatched, pending or lettered; dropped where the list is too long.
        collections: how many were compared.
        compared_at: by the database's clock.
        legacy_seconds: what reading took; and `target_seconds`.
        mismatches: the first 20, by their ids.

    """

    phase: Phase
    epoch: int
    falls_back: bool
    outcome: Outcome
    collections: int
    compared_at: datetime
    legacy_seconds: float
    target_seconds: float
    mismatches: Sequence[Mismatch] = ()


async def compare(
    connection: asyncpg.Connection, project_id: str, most: int = MOST_COLLECTIONS
) -> Comparison | None:
    """Compare the project's list; None where nothing is to be compared in this phase."""
    return told(await connection.fetchrow(COMPARE, project_id, most))


def told(row: asyncpg.Record | None) -> Comparison | None:
    """Return what a row of COMPARE says."""
    if row is None:
        return None
    return Comparison(
        Phase(row["phase"]),
        row["epoch"],
        row["falls_back"],
        _outcome(row),
        row["collections"],
        row["compared_at"],
        row["legacy_seconds"],
        row["target_seconds"],
        [Mismatch(*named) for named in row["mismatches"]],
    )


def _outcome(row: asyncpg.Record) -> Outcome:
    if row["is_too_long"]:
        return Outcome.DROPPED
    if row["mismatches"]:
        return Outcome.MISMATCHED
    if row["is_lettered"]:
        return Outcome.LETTERED
    return Outcome.PENDING if row["waits"] else Outcome.MATCHED
