"""The tables: whether they, their columns and indexes are those that this release needs, and are found."""

import asyncpg
from sqlalchemy import Index
from sqlalchemy.engine import make_url
from sqlalchemy.schema import CreateIndex

from shared.migration_state import READ_REVISION, VERSION_TABLE
from shared.revision import REVISION
from shared.tables.legacy import legacy_metadata
from shared.tables.outbox import metadata
from worker.preflight.check import Found, Objection, each, stop, warn
from worker.preflight.needs import COPIED, LEGACY, OURS, TABLES, TARGET

UPGRADE = "alembic upgrade head"
DIALECT = make_url("postgresql+asyncpg://").get_dialect()()
# Of several tables of one name, the first along the search path is the one that is found.
IN_SCHEMAS = """
    SELECT relation, relnamespace::regnamespace::text AS schema, (
            SELECT string_agg(other.relnamespace::regnamespace::text, ', ' ORDER BY other.relnamespace)
            FROM pg_class AS other
            WHERE other.relname = relation AND other.oid <> found.oid
                AND other.relnamespace::regnamespace::text = ANY(current_schemas(false)::text[])
        ) AS others
    FROM unnest($1::text[]) AS ours (relation)
    LEFT JOIN pg_class AS found ON found.oid = to_regclass(relation)
    ORDER BY relation
"""
# Of a database from before PostgreSQL 15, upgraded since or not, public is such a schema.
OPEN_SCHEMAS = """
    SELECT quote_ident(nspname) AS schema
    FROM pg_namespace
    WHERE nspname = ANY(current_schemas(false)) AND has_schema_privilege('public', oid, 'CREATE')
    ORDER BY nspname
"""
MISSING_COLUMNS = """
    SELECT relation, string_agg(quote_ident(name), ', ' ORDER BY name) AS columns
    FROM unnest($1::text[], $2::text[]) AS needed (relation, name)
    WHERE to_regclass(relation) IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = to_regclass(relation) AND attname = name AND NOT attisdropped
    )
    GROUP BY relation
    ORDER BY relation
"""
# A length is part of a type's modifier, as a precision of seconds is. Text without one takes all.
NARROWER = """
    SELECT target.attname AS target, legacy.attname AS legacy,
        format_type(target.atttypid, target.atttypmod) AS target_type,
        format_type(legacy.atttypid, legacy.atttypmod) AS legacy_type
    FROM unnest($3::text[], $4::text[]) AS copied (target, legacy)
    JOIN pg_attribute AS target ON target.attrelid = to_regclass($1) AND target.attname = copied.target
    JOIN pg_attribute AS legacy ON legacy.attrelid = to_regclass($2) AND legacy.attname = copied.legacy
    WHERE target.atttypmod >= 0 AND (legacy.atttypmod < 0 OR legacy.atttypmod > target.atttypmod)
        OR target.atttypid <> legacy.atttypid
            AND NOT (
                ARRAY[target.atttypid, legacy.atttypid] <@ ARRAY['text'::regtype, 'varchar'::regtype]::oid[]
            )
    ORDER BY target.attname
"""
INDEXES = """
    SELECT name, to_regclass(name) IS NOT NULL AS is_there, coalesce(indisvalid, false) AS is_valid
    FROM unnest($1::text[]) AS needed (name)
    LEFT JOIN pg_index ON indexrelid = to_regclass(name)
    WHERE indisvalid IS NOT TRUE
    ORDER BY name
"""


async def revision(connection: asyncpg.Connection) -> Found:
    at = None
    if await connection.fetchval("SELECT to_regclass($1)", VERSION_TABLE) is not None:
        at = await connection.fetchval(str(READ_REVISION))
    fine = f"The schema is at revision {at}; this release needs {REVISION}."
    if at is None or at < REVISION:
        found = "was never migrated" if at is None else f"is at revision {at}"
        return Found("", [stop(f"The database {found}; this release needs {REVISION}.", UPGRADE)])
    return Found(fine)


async def search_path(connection: asyncpg.Connection) -> Found:
    """Look whether names lead to the tables that are meant."""
    rows = await connection.fetch(IN_SCHEMAS, TABLES)
    missing = [row["relation"] for row in rows if row["schema"] is None]
    schemas = sorted({row["schema"] for row in rows} - {None})
    path = await connection.fetchval("SELECT current_setting('search_path')")
    objections = []
    if missing:
        ours = [name for name in missing if name in OURS]
        objections.append(
            stop(
                f"Along the search path ({path}) there is no {', '.join(missing)}.",
                UPGRADE if ours == missing else "ALTER ROLE … RESET search_path; -- or of the database",
            )
        )
    objections += [
        stop(
            f"Along {path}, {row['relation']} of {row['schema']} hides that of {row['others']}.",
            f"ALTER ROLE … SET search_path = {row['others']}; -- the schema that holds the rows",
        )
        for row in rows
        if row["others"]
    ]
    return Found(f"Every table is found, in {', '.join(schemas)}.", objections)


async def schemas(connection: asyncpg.Connection) -> Found:
    """Look whether others than their owners may create in the schemas that our sessions search."""
    objections = each(
        await connection.fetch(OPEN_SCHEMAS),
        lambda row: warn(
            f"Everybody may create in schema {row['schema']}, which our sessions search:"
            " a role that makes functions there may have our logins run them.",
            f"REVOKE CREATE ON SCHEMA {row['schema']} FROM PUBLIC; -- first GRANT CREATE … to who needs it",
        ),
    )
    return Found("Not everybody may create in the schemas that our sessions search.", objections)


async def columns(connection: asyncpg.Connection) -> Found:
    """Look whether columns are there that we use, and take all that is copied into them."""
    used = [
        (table.name, column.name)
        for tables in (metadata, legacy_metadata)
        for table in tables.tables.values()
        for column in table.columns
    ]
    used += [(TARGET, name) for name in ("id", *COPIED)]
    missing = await connection.fetch(MISSING_COLUMNS, *map(list, zip(*used, strict=True)))
    objections: list[Objection] = [
        stop(
            f"{row['relation']} lacks {row['columns']}.",
            UPGRADE if row["relation"] in OURS else "Let the monolith's migrations bring them back",
        )
        for row in missing
    ]
    narrower = await connection.fetch(NARROWER, TARGET, LEGACY, list(COPIED), list(COPIED.values()))
    objections += [_narrower(row) for row in narrower]
    return Found("Every column that is used is there, and takes what is copied into it.", objections)


def _narrower(row: asyncpg.Record) -> Objection:
    return warn(
        f"{TARGET}.{row['target']} is {row['target_type']} and {LEGACY}.{row['legacy']} {row['legacy_type']}:"
        " what does not fit dies, and what is rounded differs for ever.",
        f"ALTER TABLE {TARGET} ALTER COLUMN {row['target']} TYPE {row['legacy_type']};",
    )


async def indexes(connection: asyncpg.Connection) -> Found:
    """Look whether our indexes and keys are there, and valid."""
    made = {
        str(index.name): _statement(index) for table in metadata.tables.values() for index in table.indexes
    }
    keys = {
        f"{name}_pkey": f"ALTER TABLE {name} ADD PRIMARY KEY ({', '.join(table.primary_key.columns.keys())});"
        for name, table in metadata.tables.items()
    }
    objections: list[Objection] = []
    for row in await connection.fetch(INDEXES, [*made, *keys]):
        name = row["name"]
        if row["is_there"]:
            objections.append(warn(f"Index {name} is not valid.", f"REINDEX INDEX CONCURRENTLY {name};"))
        elif name in made:
            objections.append(warn(f"Index {name} is missing: statements read whole tables.", made[name]))
        else:
            objections.append(stop(f"The primary key {name} is missing.", keys[name]))
    return Found(f"All {len(made) + len(keys)} indexes of ours are there.", objections)


def _statement(index: Index) -> str:
    return " ".join(str(CreateIndex(index).compile(dialect=DIALECT)).split()) + ";"
