"""One collection as every table has it, on one snapshot, each part by an index and bounded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table, Text, cast, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.pair import DIFFER, EXPECTED
from shared.projection import COLUMNS
from shared.status.session import Parts, looking
from shared.tables.legacy import collections
from shared.tables.outbox import applied_versions, outbox_dead_letters, outbox_events

Values = Mapping[str, Any]
MOST = 20  # of events, of letters, of findings

target = Table(
    "project_collections",
    MetaData(),
    Column("id", Integer),
    Column("project_id", String),
    Column("collection_id", String),
    *(Column(column.name, Text) for column in COLUMNS),
)
LEGACY = ("collection_id", "project_id", "is_active", *(column.legacy for column in COLUMNS))
TARGET = ("id", "project_id", *(column.name for column in COLUMNS))
APPLIED = ("version", "project_id", "is_deleted", "found_row", "appended_at")
EVENT = ("id", "event_type", "source", "created_at", "schema_version", "attempts")
LETTER = ("id", "event_type", "state", "died_at", "sqlstate", "error", "replayed_as")

READABLE = text("""
    SELECT attname FROM pg_attribute
    WHERE attrelid = to_regclass(:name) AND attnum > 0 AND NOT attisdropped
        AND has_column_privilege(attrelid, attnum, 'SELECT')
""")
# Served by collections_pkey and by the target's unique key. As the audit compares; the home row alone counts.
AGREES = text(f"""
    SELECT CASE WHEN legacy.is_active THEN target.collection_id IS NOT NULL AND NOT ({DIFFER})
        ELSE target.collection_id IS NULL END
    FROM (VALUES (CAST(:collection_id AS text))) AS asked (collection_id)
    LEFT JOIN LATERAL (
        SELECT collection_id, project_id, is_active, {EXPECTED}
        FROM collections WHERE collection_id = asked.collection_id
    ) AS legacy ON true
    LEFT JOIN project_collections AS target
        ON target.collection_id = legacy.collection_id AND target.project_id = legacy.project_id
""")  # noqa: S608 - constants
# Served by audit_runs_by_end and audit_findings_pkey.
FINDINGS = text("""
    SELECT finding.audit_run_id, finding.kind, finding.found_at::text AS found_at, finding.outcome
    FROM (
        SELECT id FROM audit_runs WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 1000
    ) AS run
    JOIN LATERAL (
        SELECT audit_run_id, kind, found_at, outcome FROM audit_findings
        WHERE audit_run_id = run.id AND collection_id = :collection_id
        ORDER BY audit_run_id, collection_id LIMIT 1
    ) AS finding ON true
    LIMIT :most
""")
# Served by backfill_runs_by_start: runs are started by hand.
BACKFILLED = text("""
    SELECT coalesce((
        SELECT true FROM backfill_runs WHERE status = 'finished' AND project_id IS NULL
        ORDER BY started_at DESC LIMIT 1
    ), false)
""")


@dataclass(frozen=True, slots=True)
class Collection:
    """What was found, all as PostgreSQL writes it. None: a part that is not known, or not ours to see.

    Of a row, columns are left out that this login may not see. legacy: empty where there is no row. target:
    the rows of any project. applied: what the guard holds, empty where there is none; its version is 0 where
    no event was applied yet. agrees: whether the home row is what it should be. is_backfilled: whether a
    backfill of everything has finished. unknown: what was not read, and why.
    """

    collection_id: str
    legacy: Values | None
    target: Sequence[Values] | None
    applied: Values | None
    events: Sequence[Values] | None
    letters: Sequence[Values] | None
    findings: Sequence[Values] | None
    agrees: bool | None
    is_backfilled: bool | None
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def pending(self) -> list[Values]:
        """Return the events that wait and are newer than what was applied."""
        version = (self.applied or {}).get("version", 0)
        return [event for event in self.events or () if int(event["id"]) > int(version)]

    @property
    def open_letters(self) -> list[Values]:
        return [letter for letter in self.letters or () if letter["state"] == "dead"]


async def read(engine: AsyncEngine, collection_id: str) -> Collection:
    """Read all of it.

    Raises:
        sqlalchemy.exc.DBAPIError, OSError, TimeoutError: PostgreSQL did not answer.

    """
    async with looking(engine) as connection:
        parts = Parts(connection)

        async def rows(
            part: str, table: Table, key: Column[Any], names: Sequence[str]
        ) -> list[Values] | None:
            return await parts.read(
                part, partial(_rows, table=table, key=key, names=names, value=collection_id)
            )

        legacy = await rows("legacy", collections, collections.c.collection_id, LEGACY)
        applied = await rows("applied", applied_versions, applied_versions.c.collection_id, APPLIED)
        asked = {"collection_id": collection_id}
        return Collection(
            collection_id=collection_id,
            legacy=_first(legacy),
            target=await rows("target", target, target.c.collection_id, TARGET),
            applied=_first(applied),
            events=await rows("events", outbox_events, outbox_events.c.aggregate_id, EVENT),
            letters=await rows("letters", outbox_dead_letters, outbox_dead_letters.c.aggregate_id, LETTER),
            findings=await parts.read("findings", partial(_findings, asked=asked)),
            agrees=await parts.read("agrees", partial(_scalar, statement=AGREES, asked=asked)),
            is_backfilled=await parts.read("backfilled", partial(_scalar, statement=BACKFILLED, asked={})),
            unknown=parts.unknown,
        )


async def _rows(
    connection: AsyncConnection, table: Table, key: Column[Any], names: Sequence[str], value: str
) -> list[Values]:
    """Return the newest rows of the collection, with those of the columns that this login may see."""
    seen = set((await connection.execute(READABLE, {"name": table.name})).scalars())
    visible = [cast(table.c[name], Text).label(name) for name in names if name in seen]
    newest = (select(*visible) if visible else select(key)).where(key == value).limit(MOST)
    if "id" in seen and table is not target:
        newest = newest.order_by(key.desc(), table.c.id.desc())
    return [dict(row) for row in (await connection.execute(newest)).mappings()]


async def _findings(connection: AsyncConnection, asked: Values) -> list[Values]:
    found = await connection.execute(FINDINGS, {**asked, "most": MOST})
    return [dict(row) for row in found.mappings()]


async def _scalar(connection: AsyncConnection, statement: Any, asked: Values) -> bool:  # noqa: ANN401
    return bool((await connection.execute(statement, dict(asked))).scalar_one())


def _first(rows: Sequence[Values] | None) -> Values | None:
    return None if rows is None else next(iter(rows), {})
