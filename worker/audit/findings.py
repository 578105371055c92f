"""Findings as rows: recorded by the database itself, read a page at a time, so memory stays flat."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.pair import COLUMNS, shown
from shared.postgres.database import driver_connection
from worker.audit.comparison import CLIENT_TIMEOUT_SECONDS, DIFFERENCES, IN_SLICE, Slice

MOST_LISTED = 1_000  # of an audit that does not repair
MOST_LISTED_BY_SCHEDULE = 20  # of each that workers run by themselves: it comes again every minute
PAGE = 500

# $4 run, $5 the most rows or NULL. A run that was begun anew may find a key again that it repaired.
RECORD = f"""
    INSERT INTO audit_findings (audit_run_id, collection_id, project_id, kind, legacy, target)
    SELECT DISTINCT ON (collection_id) $4::bigint, collection_id, project_id, kind, legacy, target
    FROM ({DIFFERENCES}) AS difference
    LIMIT $5::bigint
    ON CONFLICT (audit_run_id, collection_id) DO UPDATE SET kind = excluded.kind, legacy = excluded.legacy,
        target = excluded.target, found_at = excluded.found_at, repair_event_id = NULL, outcome = NULL
"""  # noqa: S608 - made of constants

# Of a "finding", the open letter of its collection, where that exists: no other can be replayed. Served by
# outbox_dead_letters_of_aggregate and collections_pkey.
ITS_LETTER = """
    LEFT JOIN LATERAL (
        SELECT id FROM outbox_dead_letters
        WHERE aggregate_id = finding.collection_id AND closed_at IS NULL
            AND EXISTS (SELECT FROM collections WHERE collection_id = finding.collection_id)
        ORDER BY aggregate_id DESC, id DESC LIMIT 1
    ) AS letter (dead_letter) ON true"""

# Served by audit_findings_pkey, which orders the pages. $4 run, $5 the last key of the page before.
READ_PAGE = f"""
    SELECT collection_id, project_id, kind, legacy, target, dead_letter
    FROM audit_findings AS finding {ITS_LETTER}
    WHERE audit_run_id = $4::bigint AND repair_event_id IS NULL AND outcome IS NULL
        AND ($5::varchar IS NULL OR collection_id > $5) AND {IN_SLICE}
    ORDER BY collection_id
    LIMIT {PAGE}
"""  # noqa: S608 - made of constants

COUNT_REPAIRED = """
    SELECT kind, count(*) FROM audit_findings
    WHERE audit_run_id = $1 AND repair_event_id IS NOT NULL GROUP BY kind
"""
# Served by audit_findings_pkey, which orders them, and captured_writers_pkey. $3 the last key of the page
# before, or NULL.
READ_FIRST = f"""
    SELECT finding.collection_id, finding.project_id, finding.kind, finding.legacy, finding.target,
        finding.outcome, dead_letter,
        concat_ws(' ', role, '(' || nullif(application, '') || ')', operation,
            to_char(captured_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')) AS writer
    FROM audit_findings AS finding {ITS_LETTER}
    LEFT JOIN captured_writers ON captured_writers.collection_id = finding.collection_id
    WHERE audit_run_id = $1 AND ($3::varchar IS NULL OR finding.collection_id > $3)
    ORDER BY finding.collection_id
    LIMIT $2
"""  # noqa: S608 - made of constants

# Served by audit_findings_pkey and by the unique constraint of project_collections.
READ_REPAIRED = f"""
    SELECT finding.collection_id, finding.project_id, finding.kind, finding.legacy, finding.outcome,
        CASE WHEN home.collection_id IS NOT NULL THEN {shown("home")} END AS target
    FROM audit_findings AS finding
    LEFT JOIN project_collections AS home
        ON home.collection_id = finding.collection_id AND home.project_id = finding.project_id
    WHERE finding.audit_run_id = $1 AND finding.outcome IS NOT NULL
    ORDER BY finding.collection_id
    LIMIT $2
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class Finding:
    """One pair that differs: the compared columns of both sides, as JSON has them.

    legacy: None when there should be no home row. target: None when there is none. dead_letter: the open
    letter of the collection, whose event died and is why the pair differs. writer: who wrote the collection
    past the outbox last, how and when, by a capture in the database; empty where none saw it.
    """

    collection_id: str
    project_id: str
    kind: str
    legacy: dict[str, Any] | None
    target: dict[str, Any] | None
    outcome: str | None = None
    dead_letter: int | None = None
    writer: str = ""

    @property
    def differs(self) -> list[str]:
        """The columns that differ; all of them where one side has no row."""
        if self.legacy is None or self.target is None:
            return list(COLUMNS)
        # A run that was begun by the release before may lack a column that is new: on both sides.
        return [name for name in COLUMNS if self.legacy.get(name) != self.target.get(name)]


async def record(connection: asyncpg.Connection, run_id: int, scope: Slice, most: int | None) -> int:
    """Write the slice's differences into `audit_findings` and return how many; `most`, if it is a number.

    The connection must be in the transaction, and on the snapshot, of the comparison that counted them.
    """
    status: str = await connection.execute(
        RECORD, *scope.arguments, run_id, most, timeout=CLIENT_TIMEOUT_SECONDS
    )
    return int(status.rsplit(maxsplit=1)[-1])


async def pages(engine: AsyncEngine, run_id: int, scope: Slice) -> AsyncIterator[list[Finding]]:
    """Read the slice's findings that nothing was done about yet, a page at a time."""
    last: str | None = None
    while True:
        async with driver_connection(engine) as connection:
            rows = await connection.fetch(READ_PAGE, *scope.arguments, run_id, last)
        if not rows:
            return
        yield [_finding(row) for row in rows]
        last = rows[-1]["collection_id"]


async def repaired_before(connection: asyncpg.Connection, run_id: int) -> dict[str, int]:
    """Count by kind what this run repaired in a process that died; nothing for a run that is new."""
    return {kind: count for kind, count in await connection.fetch(COUNT_REPAIRED, run_id)}  # noqa: C416


async def first_findings(
    engine: AsyncEngine, run_id: int, most: int, after: str | None = None
) -> list[Finding]:
    """Return the first findings of a run, or those after a key, with the outcome of their repair."""
    async with driver_connection(engine) as connection:
        return [_finding(row) for row in await connection.fetch(READ_FIRST, run_id, most, after)]


async def repaired_findings(engine: AsyncEngine, run_id: int, most: int) -> list[Finding]:
    """Return the first findings of a run that were compared again, each `target` as the home row is now."""
    async with driver_connection(engine) as connection:
        return [_finding(row) for row in await connection.fetch(READ_REPAIRED, run_id, most)]


def _finding(row: asyncpg.Record) -> Finding:
    return Finding(**row)  # SQLAlchemy gave the connection its codec for JSON
