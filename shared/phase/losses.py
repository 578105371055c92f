"""What going back would lose: what only `project_collections` holds, and readers see once reads are moved.

Each kind is counted apart, so a further link with tags counts under both. Of all collections only active ones
count: of others nothing is shown on either side. Nor does the row count that a move has left in its former
home, and that its event is still to remove: no list shows it.

- further links: rows that link a collection to another project than its home;
- tags, mappings: rows, of homes or links, that hold more than an empty list, an empty object or null;
- contexts: home rows whose context differs from the description in any byte, or is missing on one side,
  unless the collection is unsettled: then the list shows the description already. And links that have a
  context of their own, which is not that description;
- without home: settled collections that are linked somewhere and have no row in their home: lists do not show
  them there, and would again. One that is linked nowhere is the audit's to find.

Unsettled is what it is to the view: an event waits, or a dead letter is open.

All kinds are of one snapshot. Of large tables they are of one for each slice, as in an audit, and each
collection is in one slice: a snapshot of minutes would keep PostgreSQL from removing acknowledged events.
"""

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.choices import MOST_SLICES
from shared.enriched import MAPPINGS, holds_anything
from shared.planner import COMPARISON, for_transaction
from shared.verdict.facts import Losses

STATEMENT_TIMEOUT_SECONDS = 600
CLIENT_TIMEOUT_SECONDS = STATEMENT_TIMEOUT_SECONDS + 5

# Whole tables are joined by hashing, in one process: nobody waits for it. Nor does it wait for who has locked
# a table, and make others wait behind it.
SETTINGS = text(
    for_transaction(
        COMPARISON
        | {
            "work_mem": "48MB",
            "max_parallel_workers_per_gather": "0",
            "statement_timeout": f"{STATEMENT_TIMEOUT_SECONDS}s",
            "lock_timeout": "250ms",
        }
    )
)

BYTES_PER_SLICE = 500_000_000  # of both tables: a million rows, which take some seconds
SIZE = "SELECT pg_relation_size('collections') + pg_relation_size('project_collections')"

KINDS = ("further_links", "tags", "mappings", "contexts", "without_home")


def in_slice(row: str) -> str:
    """Return whether the row is in slice $2, from 0, of $1: a power of two."""
    hashed = f"hashtextextended({row}.collection_id, 0)"
    return f"($1::integer = 1 OR {hashed} & ($1::integer - 1) = $2::integer)"


# Served by no index: each table is read from end to end. Of one slice the planner drops the tests for it.
COUNT = f"""
    WITH unsettled AS MATERIALIZED (
        SELECT waiting.aggregate_id AS collection_id, guard.project_id AS former_home
        FROM (
            SELECT aggregate_id FROM outbox_events
            UNION
            SELECT aggregate_id FROM outbox_dead_letters WHERE closed_at IS NULL
        ) AS waiting
        LEFT JOIN applied_versions AS guard ON guard.collection_id = waiting.aggregate_id
    ), shown AS NOT MATERIALIZED (
        SELECT
            target.collection_id,
            legacy.project_id AS home,
            target.project_id <> legacy.project_id AS is_link,
            unsettled.collection_id IS NULL AS is_settled,
            {holds_anything("tags")} AS has_tags,
            {" OR ".join(map(holds_anything, MAPPINGS))} AS has_mappings,
            target.research_context IS NOT NULL AS has_context,
            target.research_context COLLATE "C" IS DISTINCT FROM legacy.description COLLATE "C" AS differs
        FROM project_collections AS target
        JOIN collections AS legacy ON legacy.collection_id = target.collection_id
        LEFT JOIN unsettled ON unsettled.collection_id = target.collection_id
        WHERE legacy.is_active AND {in_slice("legacy")} AND {in_slice("target")} AND (
            target.project_id = legacy.project_id
            OR unsettled.former_home IS DISTINCT FROM target.project_id
        )
    )
    SELECT
        statement_timestamp() AS counted_at,
        count(*) FILTER (WHERE is_link) AS further_links,
        count(*) FILTER (WHERE has_tags) AS tags,
        count(*) FILTER (WHERE has_mappings) AS mappings,
        count(*) FILTER (
            WHERE differs AND CASE WHEN is_link THEN has_context ELSE is_settled END
        ) AS contexts,
        (
            SELECT count(*)
            FROM (SELECT DISTINCT collection_id, home FROM shown WHERE is_link AND is_settled) AS linked
            WHERE NOT EXISTS (
                SELECT FROM project_collections AS target
                WHERE target.project_id = linked.home AND target.collection_id = linked.collection_id
                    AND {in_slice("target")}
            )
        ) AS without_home
    FROM shown
"""  # noqa: S608 - constants
AS_COUNTED = ", ".join(f"{name} = excluded.{name}" for name in ("counted_at", "took_seconds", *KINDS))
# $1 when it was counted, then the kinds. One row: by going_back_losses_pkey. What was counted later stays.
KEEP = f"""
    INSERT INTO going_back_losses (counted_at, took_seconds, {", ".join(KINDS)})
    SELECT $1::timestamptz, extract(epoch FROM clock_timestamp() - $1::timestamptz), $2, $3, $4, $5, $6
    ON CONFLICT (singleton) DO UPDATE SET {AS_COUNTED}
    WHERE going_back_losses.counted_at <= excluded.counted_at
"""  # noqa: S608 - constants


async def count_and_keep(connection: AsyncConnection) -> Losses:
    """Count, in seconds for each million rows, and keep it for all who show it.

    Args:
        connection: in a transaction of its own, whose settings are changed; nothing else is to be held in it.

    Raises:
        asyncpg.PostgresError: it took too long, or another session has locked one of the tables.

    """
    await connection.execute(SETTINGS)
    driver: asyncpg.Connection = (await connection.get_raw_connection()).driver_connection
    slices = await _slices(driver)
    counted = [
        row
        for number in range(slices)
        for row in await driver.fetch(COUNT, slices, number, timeout=CLIENT_TIMEOUT_SECONDS)
    ]
    counted_at = counted[0]["counted_at"]
    lost = {kind: sum(row[kind] for row in counted) for kind in KINDS}
    await driver.execute(KEEP, counted_at, *lost.values())
    return Losses(counted_at.timestamp(), **lost)


async def _slices(driver: asyncpg.Connection) -> int:
    size, slices = await driver.fetchval(SIZE), 1
    while slices < MOST_SLICES and size > slices * BYTES_PER_SLICE:
        slices *= 2
    return slices
