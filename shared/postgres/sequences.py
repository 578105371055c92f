"""Every sequence that we draw from, held against what was drawn from it.

A restore, a logical switch-over or an operator may leave a sequence behind its table, or make it hand out
ids in another order than that of commits. Then a newer event is taken for an older one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import asyncpg

from shared.planner import SEQUENCES, for_transaction

Holders = tuple[tuple[str, str], ...]

# For each table whose `id` comes from a sequence, the columns that hold such ids. An index shows whether any
# is higher than a number, or the table is small: runs are pruned, or started by hand.
DRAWN_BY_US: dict[str, Holders] = {
    "outbox_events": (
        ("outbox_events", "id"),
        ("applied_versions", "version"),
        ("outbox_dead_letters", "id"),
        ("backfill_runs", "last_event_id"),
    ),
    "backfill_runs": (("backfill_runs", "id"),),
    "audit_runs": (("audit_runs", "id"),),
    "worker_processes": (("worker_processes", "id"),),
}
# The legacy service draws from it too; where it is behind, rows wait one by one.
SHARED: dict[str, Holders] = {"project_collections": (("project_collections", "id"),)}
ORDERED = "outbox_events"  # its ids must be in the order of commits

# A cure leaves room for ids that were drawn and are not committed yet.
ROOM = 1000

# What a role may not read, or not all of, is not known, and no evidence; nor is what no index shows: before
# migration 0006 versions have none.
FIND = """
    SELECT wanted.table_name, id.attidentity = '' AND NOT id.atthasdef AS draws_from_nothing,
        sequence.oid::regclass::text AS name, seqincrement, seqcache, seqcycle, seqmax,
        relation.relpersistence = 'p' AS is_table_logged, sequence.relpersistence = 'p' AS is_logged,
        coalesce(has_sequence_privilege(sequence.oid, 'SELECT'), false) AS is_readable,
        wanted.holder, wanted.column_name,
        has_column_privilege(held.attrelid, held.attnum, 'SELECT') AND NOT row_security_active(held.attrelid)
            AND (wanted.holder <> 'applied_versions' OR to_regclass('applied_versions_version') IS NOT NULL)
            AS is_held_readable
    FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY
        AS wanted (table_name, holder, column_name, place)
    JOIN pg_class AS relation ON relation.oid = to_regclass(wanted.table_name)
    JOIN pg_attribute AS id ON id.attrelid = relation.oid AND id.attname = 'id'
    LEFT JOIN pg_sequence ON seqrelid = coalesce(
        to_regclass(pg_get_serial_sequence(relation.oid::regclass::text, 'id')),
        (
            SELECT refobjid FROM pg_attrdef AS expression
            JOIN pg_depend ON classid = 'pg_attrdef'::regclass AND objid = expression.oid
            JOIN pg_class AS named ON refclassid = 'pg_class'::regclass AND named.oid = refobjid
            WHERE adrelid = relation.oid AND adnum = id.attnum AND named.relkind = 'S'
        )
    )
    LEFT JOIN pg_class AS sequence ON sequence.oid = seqrelid
    JOIN pg_attribute AS held
        ON held.attrelid = to_regclass(wanted.holder) AND held.attname = wanted.column_name
    ORDER BY wanted.place
"""
# In one statement, whose snapshot is older than what it reads of the sequence: all that it sees was drawn.
HOLD = """
    SELECT '{table}' AS table_name, last_value, is_called, CASE {passed_by} END AS passed_by
    FROM (
        SELECT last_value, is_called, last_value - (NOT is_called)::integer AS last FROM {name}
    ) AS drawn
"""
PASSED_BY = "WHEN EXISTS (SELECT FROM {0} WHERE {1} > drawn.last) THEN '{0}.{1}'"
# A caller that wants a connection to read something else must not wait for a table that is locked: it is not
# known then.
BRIEFLY_BY_INDEX = for_transaction(SEQUENCES | {"lock_timeout": "100ms"})


@dataclass(frozen=True, slots=True)
class SequenceFault:
    """Why ids must not be drawn: of which table, in a clause, and the SQL with which its owner fixes it."""

    table: str
    what: str
    cure: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """What the ids of a table are drawn from, as it was found; of what this role may not read, None.

    name: as SQL writes it; None where the ids come from elsewhere, or from nothing.
    maximum: the highest id that it can draw.
    last_value: drawn last or, unless `is_called`, to be drawn next.
    passed_by: a column that holds more than was drawn, `table.column`; None where none does.
    holders: all columns that ids of it stand in, as pairs of table and column.
    """

    table: str
    name: str | None
    draws_from_nothing: bool
    increment: int | None
    cache: int | None
    cycles: bool | None
    maximum: int | None
    is_logged: bool | None
    is_table_logged: bool
    holders: Holders
    last_value: int | None = None
    is_called: bool | None = None
    passed_by: str | None = None

    @property
    def faults(self) -> list[SequenceFault]:
        return [SequenceFault(self.table, what, cure) for what, cure in self._faults()]

    def _faults(self) -> Iterator[tuple[str, str]]:
        if not self.is_table_logged:
            yield (
                f"{self.table} is unlogged: a crash of the server empties it",
                f"ALTER TABLE {self.table} SET LOGGED;",
            )
        if self.draws_from_nothing:
            new = f"pg_get_serial_sequence({_literal(self.table)}, 'id')"
            add = f"ALTER TABLE {self.table} ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY;"
            yield f"{self.table}.id has no sequence", f"{add} {self._advance(new)}"
        if self.name is None:
            return
        if self.is_table_logged and not self.is_logged:
            yield (
                f"{self.name} is unlogged: a crash of the server makes it begin anew",
                f"ALTER SEQUENCE {self.name} SET LOGGED;",
            )
        if self.table == ORDERED and self.cache != 1:
            yield (
                f"{self.name} has CACHE {self.cache}: sessions draw ids out of order",
                f"ALTER SEQUENCE {self.name} CACHE 1;",
            )
        if self.increment is not None and self.increment < 1:
            yield (
                f"{self.name} has INCREMENT {self.increment}: later ids are lower",
                f"ALTER SEQUENCE {self.name} INCREMENT BY 1;",
            )
        if self.cycles:
            yield (
                f"{self.name} has CYCLE: at its end it begins anew",
                f"ALTER SEQUENCE {self.name} NO CYCLE;",
            )
        if self.passed_by is not None:
            drawn = f"drew {self.last_value} last" if self.is_called else f"draws {self.last_value} next"
            yield (
                f"{self.name} is behind: it {drawn}, and {self.passed_by} holds higher ids",
                self._advance(_literal(self.name)),
            )

    def _advance(self, name: str) -> str:
        highest = ", ".join(f"(SELECT max({column}) FROM {table})" for table, column in self.holders)  # noqa: S608
        return f"SELECT setval({name}, greatest({highest}) + {ROOM});"


async def read_sequences(
    connection: asyncpg.Connection, wanted: Mapping[str, Holders] = DRAWN_BY_US
) -> list[Sequence]:
    """Read the sequences of those tables that are there: a few pages, however much was drawn.

    While another session locks one of the tables, only what the catalogue holds is known.

    Args:
        connection: in a transaction or not.
        wanted: `DRAWN_BY_US`, or `DRAWN_BY_US | SHARED`.

    """
    asked = [(table, *held) for table, columns in wanted.items() for held in columns]
    found = await connection.fetch(FIND, *map(list, zip(*asked, strict=True)))
    by_table = [list(rows) for _, rows in groupby(found, key=lambda row: row["table_name"])]
    statements = [_statement(rows) for rows in by_table if rows[0]["is_readable"]]
    drawn = await _hold(connection, statements) if statements else []
    states = {state["table_name"]: state for state in drawn}
    return [_sequence(rows, states.get(rows[0]["table_name"])) for rows in by_table]


async def _hold(connection: asyncpg.Connection, statements: list[str]) -> list[asyncpg.Record]:
    try:
        async with connection.transaction():
            await connection.execute(BRIEFLY_BY_INDEX)
            held: list[asyncpg.Record] = await connection.fetch(" UNION ALL ".join(statements))
    except asyncpg.LockNotAvailableError:
        return []
    return held


def _statement(rows: Iterable[asyncpg.Record]) -> str:
    rows = list(rows)
    readable = [(row["holder"], row["column_name"]) for row in rows if row["is_held_readable"]]
    passed_by = " ".join(PASSED_BY.format(*held) for held in readable) or "WHEN false THEN ''"
    return HOLD.format(table=rows[0]["table_name"], name=rows[0]["name"], passed_by=passed_by)


def _sequence(rows: list[asyncpg.Record], state: asyncpg.Record | None) -> Sequence:
    first = rows[0]
    return Sequence(
        table=first["table_name"],
        name=first["name"],
        draws_from_nothing=first["draws_from_nothing"],
        increment=first["seqincrement"],
        cache=first["seqcache"],
        cycles=first["seqcycle"],
        maximum=first["seqmax"],
        is_logged=first["is_logged"],
        is_table_logged=first["is_table_logged"],
        holders=tuple((row["holder"], row["column_name"]) for row in rows),
        **({} if state is None else {name: state[name] for name in ("last_value", "is_called", "passed_by")}),
    )


def _literal(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
