"""The comparison: one snapshot over legacy, target, outbox and guard, so that it needs no retries.

A writer commits its row and its event together, and the worker the target's row, the guard's version and
the event's removal. On one snapshot, therefore, a pair that differs while no event waits that could change
it is drift, whatever goes on meanwhile. The key space is cut into slices by a hash of the collection's id:
every key falls into exactly one, whatever the database's collation, and no key is ever ordered.
"""

from dataclasses import asdict, dataclass, fields
from typing import Self

import asyncpg

from shared.choices import MOST_SLICES
from shared.lanes import HIGHEST_KNOWN_LANE, LOWEST_KNOWN_LANE
from shared.pair import DIFFER, EXPECTED, NAMES, shown
from shared.planner import COMPARISON, for_transaction

STATEMENT_TIMEOUT_SECONDS = 600
CLIENT_TIMEOUT_SECONDS = STATEMENT_TIMEOUT_SECONDS + 5

# Slices are scanned, not looked up: the target has no index that begins with the collection, and
# probing it row by row took 15 times as long at a million rows. A slice costs a scan of both tables.
BYTES_PER_SLICE = 1_500_000_000

# $1 slices (a power of two), $2 slice (from 0), $3 home project or NULL. With one slice, or without a
# project, the planner drops the test.
HASHED = "($1::integer = 1 OR hashtextextended(collection_id, 0) & ($1::integer - 1) = $2::integer)"
IN_SLICE = f"{HASHED} AND ($3::varchar IS NULL OR project_id = $3)"

# What waits for each collection and is newer than what was applied: anything else will change nothing. An
# event of a version that this release does not know is claimed by no worker of it. Served by no index.
WAITING = f"""(
        SELECT event.aggregate_id,
            bool_or(event.lane BETWEEN {LOWEST_KNOWN_LANE} AND {HIGHEST_KNOWN_LANE}) AS is_claimable
        FROM outbox_events AS event
        LEFT JOIN applied_versions AS guard ON guard.collection_id = event.aggregate_id
        WHERE event.id > coalesce(guard.version, 0)
        GROUP BY event.aggregate_id
    ) AS waiting
    ON waiting.aggregate_id = pair.collection_id"""  # noqa: S608 - constants

# The pairs: each collection with its home row, and whether an event for it waits. A target row without
# a partner links its collection to another project, which is nobody's concern, or it is a stray: its
# collection does not exist at all. Served by no index: both tables are scanned and joined by hashing.
PAIRS = f"""(
        SELECT
            legacy.collection_id AS legacy_id,
            target.collection_id AS target_id,
            coalesce(legacy.collection_id, target.collection_id) AS collection_id,
            coalesce(legacy.project_id, target.project_id) AS project_id,
            legacy.is_active,
            {shown("legacy")} AS expected,
            {shown("target")} AS found,
            (legacy.is_active AND target.collection_id IS NULL) IS TRUE AS is_missing,
            (legacy.is_active AND target.collection_id IS NOT NULL AND ({DIFFER})) IS TRUE AS is_mismatched,
            (NOT legacy.is_active AND target.collection_id IS NOT NULL) IS TRUE AS is_orphaned,
            legacy.collection_id IS NULL AS is_partnerless
        FROM (
            SELECT collection_id, project_id, is_active IS TRUE AS is_active, {EXPECTED}
            FROM collections WHERE {{scope}}
        ) AS legacy
        FULL JOIN (
            SELECT collection_id, project_id, {NAMES}
            FROM project_collections WHERE {{scope}}
        ) AS target
        ON target.collection_id = legacy.collection_id AND target.project_id = legacy.project_id
    ) AS pair
    LEFT JOIN {WAITING}"""  # noqa: S608 - constants
WAITS = "(waiting.aggregate_id IS NOT NULL)"
WAITS_IN_VAIN = "(waiting.is_claimable IS FALSE)"
DIFFERS = "(is_missing OR is_mismatched OR is_orphaned)"

# `planned` is counted apart from the join, on the same snapshot. No subquery depends on a row of the
# join: with one, PostgreSQL would hand a million rows to one process instead of their counts.
TALLY = f"""
    SELECT
        (SELECT count(*) FROM collections WHERE {IN_SLICE}) AS planned,
        count(legacy_id) AS compared,
        count(*) FILTER (WHERE is_active) AS active_collections,
        count(*) FILTER (WHERE legacy_id IS NOT NULL AND target_id IS NOT NULL) AS home_rows,
        count(*) FILTER (WHERE is_missing AND NOT {WAITS}) AS missing,
        count(*) FILTER (WHERE is_mismatched AND NOT {WAITS}) AS mismatched,
        count(*) FILTER (WHERE is_orphaned AND NOT {WAITS}) AS orphaned,
        count(*) FILTER (WHERE {WAITS} AND {DIFFERS}) AS pending,
        count(*) FILTER (WHERE {WAITS_IN_VAIN} AND {DIFFERS}) AS unclaimable,
        count(*) FILTER (WHERE is_partnerless) AS partnerless
    FROM {PAIRS.format(scope=IN_SLICE)}
"""  # noqa: S608 - made of constants

# Asked only where there are rows without a partner, on the same snapshot.
STRAYS = f"""
    SELECT count(*) FILTER (WHERE NOT {WAITS}) AS orphaned, count(*) FILTER (WHERE {WAITS}) AS pending,
        count(*) FILTER (WHERE {WAITS_IN_VAIN}) AS unclaimable
    FROM (SELECT collection_id FROM project_collections WHERE {IN_SLICE}) AS pair
    LEFT JOIN (
        SELECT collection_id AS legacy_id FROM collections WHERE {HASHED}
    ) AS legacy ON legacy_id = collection_id
    LEFT JOIN {WAITING}
    WHERE legacy_id IS NULL
"""  # noqa: S608 - made of constants

# The pairs that were counted as missing, mismatched or orphaned, with the full values of both sides.
DIFFERENCES = f"""
    SELECT pair.collection_id, project_id,
        CASE WHEN is_missing THEN 'missing' WHEN is_mismatched THEN 'mismatched' ELSE 'orphaned' END AS kind,
        CASE WHEN is_active THEN expected END AS legacy,
        CASE WHEN target_id IS NOT NULL THEN found END AS target
    FROM {PAIRS.format(scope=IN_SLICE)}
    WHERE NOT {WAITS} AND ({DIFFERS} OR (
        is_partnerless AND NOT EXISTS (SELECT FROM collections WHERE collection_id = target_id)
    ))
"""  # noqa: S608 - made of constants

# The join may take longer than a request may.
SETTINGS = for_transaction(
    COMPARISON | {"work_mem": "48MB", "statement_timeout": f"{STATEMENT_TIMEOUT_SECONDS}s"}
)

ALONE = "SET LOCAL max_parallel_workers_per_gather = 0"

SIZE = "SELECT pg_relation_size('collections') + pg_relation_size('project_collections')"


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice of the key space: its number, from 0, and how many there are; of one home project or all."""

    slices: int
    slice: int
    project_id: str | None

    @property
    def arguments(self) -> tuple[int, int, str | None]:
        """The first three arguments of every statement here."""
        return self.slices, self.slice, self.project_id


@dataclass(frozen=True, slots=True)
class Tally:
    """What a comparison counted: pairs planned and compared, rows of both sides, differences by kind.

    unclaimable: of the pending, those for which only events wait that no worker of this release claims.
    """

    planned: int = 0
    compared: int = 0
    active_collections: int = 0
    home_rows: int = 0
    missing: int = 0
    mismatched: int = 0
    orphaned: int = 0
    pending: int = 0
    unclaimable: int = 0

    def __add__(self, other: Self) -> "Tally":
        names = [field.name for field in fields(self)]
        return Tally(*(getattr(self, name) + getattr(other, name) for name in names))

    @property
    def recorded(self) -> dict[str, int]:
        """What `audit_runs` and the log hold of it."""
        return {name: count for name, count in asdict(self).items() if name != "unclaimable"}

    @property
    def found(self) -> int:
        """The pairs that differ although no event for them waits."""
        return self.missing + self.mismatched + self.orphaned


async def slices_for(connection: asyncpg.Connection, project_id: str | None, least: int = 1) -> int:
    """Return how many slices keep a snapshot to a few seconds: a power of two, 16 at most.

    Args:
        connection: asked for the tables' size.
        project_id: of a project's rows there is one slice.
        least: the smallest number to return.

    """
    if project_id is not None:  # indexes lead to a project's rows
        return 1
    size = await connection.fetchval(SIZE)
    slices = 1
    while slices < MOST_SLICES and (slices < least or size > slices * BYTES_PER_SLICE):
        slices *= 2
    return slices


async def prepare(connection: asyncpg.Connection, *, alone: bool = False) -> None:
    """Give this transaction the settings that the comparison needs.

    Args:
        connection: in a transaction.
        alone: use no parallel workers: nobody waits for this audit, and live writes need the other cores.

    """
    await connection.execute(SETTINGS)
    if alone:
        await connection.execute(ALONE)


async def compare(connection: asyncpg.Connection, scope: Slice) -> Tally:
    """Compare all pairs of the slice on the snapshot of the transaction, which is REPEATABLE READ."""
    counts = await _one_row(connection, TALLY, scope)
    partnerless = counts.pop("partnerless")
    tally = Tally(**counts)
    if partnerless:
        tally += Tally(**await _one_row(connection, STRAYS, scope))
    return tally


async def _one_row(connection: asyncpg.Connection, statement: str, scope: Slice) -> dict[str, int]:
    # Not `fetchrow`: it asks for one row at most, and then PostgreSQL uses no parallel workers.
    [row] = await connection.fetch(statement, *scope.arguments, timeout=CLIENT_TIMEOUT_SECONDS)
    return dict(row)


async def differences(connection: asyncpg.Connection, scope: Slice) -> list[asyncpg.Record]:
    """Return the slice's differences: collection_id, project_id, kind, and both sides as JSON texts."""
    rows: list[asyncpg.Record] = await connection.fetch(
        DIFFERENCES, *scope.arguments, timeout=CLIENT_TIMEOUT_SECONDS
    )
    return rows
