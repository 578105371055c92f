"""Legacy table and target: what others have put there that can change or refuse what we write."""

import asyncpg

from shared.capture import TRIGGERS as TRIGGERS_OF_CAPTURE
from worker.preflight.check import Found, Objection, each, stop, warn
from worker.preflight.needs import API, COPIED, LEGACY, NEEDS, OURS, TARGET

WRITTEN = (LEGACY, TARGET)
KEY = ("project_id", "collection_id")
ADD_KEY = (
    f"ALTER TABLE {TARGET} ADD CONSTRAINT {TARGET}_project_id_collection_id_key UNIQUE ({', '.join(KEY)});"
)
OTHER_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
TRANSPARENT = ("r", "p", "v")
MOST_LETTERS = 200  # of a definition

# Every relation by its oid::regclass::text: quoted, and with its schema where the search path has it not.
KINDS = """
    SELECT oid::regclass::text AS relation, relkind::text AS kind
    FROM pg_class
    WHERE oid IN (to_regclass($1), to_regclass($2))
    ORDER BY 1
"""
UNLOGGED = """
    SELECT oid::regclass::text AS relation, relpersistence::text AS persistence
    FROM pg_class
    JOIN unnest($1::text[]) AS ours (name) ON oid = to_regclass(name)
    WHERE relpersistence <> 'p'
    ORDER BY 1
"""
# tgtype: 1 row, 2 before, 64 instead. tgenabled: O origin, A always, R replica only, D disabled.
TRIGGERS = """
    SELECT tgrelid::regclass::text AS relation, quote_ident(tgname) AS name,
        tgfoid::regproc::text AS function, tgenabled::text AS enabled, tginitdeferred AS is_deferred,
        CASE WHEN tgtype & 66 <> 0 THEN 'change or refuse' ELSE 'refuse' END AS may,
        concat_ws(
            ' or ',
            CASE WHEN tgtype & 4 <> 0 THEN 'INSERT' END,
            CASE WHEN tgtype & 16 <> 0 THEN 'UPDATE' END,
            CASE WHEN tgtype & 8 <> 0 THEN 'DELETE' END
        ) AS events
    FROM pg_trigger
    JOIN unnest($1::text[]) AS ours (relation) ON tgrelid = to_regclass(ours.relation)
    WHERE NOT tgisinternal AND tgparentid = 0 AND tgenabled <> 'D' AND tgtype & 28 <> 0
    ORDER BY 1, 2
"""
# The triggers that keep foreign keys: of the table that refers, and of the one referred to.
UNKEPT_KEYS = """
    SELECT DISTINCT tgrelid::regclass::text AS relation, conname
    FROM pg_trigger
    JOIN pg_constraint ON pg_constraint.oid = tgconstraint
    WHERE tgisinternal AND tgenabled <> 'O' AND conrelid IN (to_regclass($1), to_regclass($2))
    ORDER BY 1, 2
"""
REWRITE_RULES = """
    SELECT ev_class::regclass::text AS relation, quote_ident(rulename) AS name
    FROM pg_rewrite
    JOIN unnest($1::text[]) AS ours (relation) ON ev_class = to_regclass(ours.relation)
    WHERE rulename <> '_RETURN'
    ORDER BY 1, 2
"""
CONSTRAINTS = """
    SELECT conrelid::regclass::text AS relation, quote_ident(conname) AS name, contype::text AS kind,
        left(pg_get_constraintdef(pg_constraint.oid), $3) AS definition, condeferrable, condeferred
    FROM pg_constraint
    JOIN unnest($1::text[]) AS ours (relation) ON conrelid = to_regclass(ours.relation)
    WHERE contype IN ('c', 'x') OR condeferrable
        OR contype = 'u' AND NOT (conrelid = to_regclass($2) AND conkey @> (
            SELECT array_agg(attnum) FROM pg_attribute WHERE attrelid = conrelid AND attname = ANY($4)
        ))
    ORDER BY 1, 2
"""
UNIQUE_INDEXES = """
    SELECT indrelid::regclass::text AS relation, indexrelid::regclass::text AS name,
        left(pg_get_indexdef(indexrelid), $2) AS definition
    FROM pg_index
    JOIN unnest($1::text[]) AS ours (relation) ON indrelid = to_regclass(ours.relation)
    WHERE indisunique AND NOT indisprimary
        AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype = 'u')
        AND NOT (indpred IS NULL AND indnkeyatts = 2 AND pg_get_indexdef(indexrelid, 1, true) = ANY($3)
            AND pg_get_indexdef(indexrelid, 2, true) = ANY($3))
    ORDER BY 1, 2
"""
# What ON CONFLICT (project_id, collection_id) can go by.
KEYS = """
    SELECT indexrelid::regclass::text AS name, indisvalid AND indisready AS is_valid,
        indimmediate AS is_immediate
    FROM pg_index
    WHERE indrelid = to_regclass($1) AND indisunique AND indpred IS NULL AND indexprs IS NULL
        AND indnkeyatts = cardinality($2::text[])
        AND NOT EXISTS (
            SELECT FROM generate_series(1, indnkeyatts) AS place
            WHERE pg_get_indexdef(indexrelid, place::int, true) <> ALL($2)
        )
    ORDER BY indisvalid AND indimmediate DESC
"""
CHILDREN = """
    SELECT conrelid::regclass::text AS relation, quote_ident(conname) AS name, confdeltype::text AS on_delete,
        regexp_replace(
            pg_get_constraintdef(oid), '\\)( MATCH FULL)? (ON|DEFERRABLE|NOT VALID).*$', ')'
        ) AS definition
    FROM pg_constraint
    WHERE contype = 'f' AND confrelid = to_regclass($1) AND conparentid = 0
    ORDER BY 1, 2
"""
# A collection that is deleted by SQL takes its rows along by these keys.
PARENTS = """
    SELECT parent FROM unnest($2::text[]) AS needed (parent)
    WHERE NOT EXISTS (
        SELECT FROM pg_constraint
        WHERE contype = 'f' AND conrelid = to_regclass($1) AND confrelid = to_regclass(parent)
            AND confdeltype = 'c' AND coalesce((to_jsonb(pg_constraint) ->> 'conenforced')::boolean, true)
    )
    ORDER BY parent
"""
# Columns that an INSERT of ours leaves to the table.
UNFILLED = """
    SELECT attrelid::regclass::text AS relation, quote_ident(attname) AS name
    FROM pg_attribute
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped AND attnotnull AND NOT atthasdef
        AND attidentity = '' AND attname <> ALL($2)
    ORDER BY attnum
"""
STRICTER = """
    SELECT quote_ident(target.attname) AS name
    FROM unnest($3::text[], $4::text[]) AS copied (target, legacy)
    JOIN pg_attribute AS target ON target.attrelid = to_regclass($1) AND target.attname = copied.target
    JOIN pg_attribute AS legacy ON legacy.attrelid = to_regclass($2) AND legacy.attname = copied.legacy
    WHERE target.attnotnull AND NOT legacy.attnotnull
    ORDER BY 1
"""
MADE_BY_THE_TABLE = """
    SELECT attrelid::regclass::text AS relation, quote_ident(attname) AS name,
        attgenerated <> '' AS is_generated, attname = ANY($2) AS is_written
    FROM pg_attribute
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
        AND (attgenerated <> '' OR attidentity = 'a' AND attname = ANY($2))
    ORDER BY attnum
"""
FILLED = {LEGACY: NEEDS[API][LEGACY]["INSERT"].split(), TARGET: list(COPIED)}


async def kinds(connection: asyncpg.Connection) -> Found:
    """Look whether legacy table and target are tables."""
    rows = await connection.fetch(KINDS, *WRITTEN)
    objections = [
        (warn if row["kind"] in TRANSPARENT else stop)(
            f"{row['relation']} is {OTHER_KINDS[row['kind']]}: what lies beneath it was not looked at.",
            "Let the name be the table's own: ALTER VIEW … RENAME TO …; ALTER TABLE … RENAME TO …;",
        )
        for row in rows
        if row["kind"] in OTHER_KINDS
    ]
    parted = [row["relation"] for row in rows if row["kind"] == "p"]
    fine = f"{', '.join(parted)}: partitioned." if parted else f"{' and '.join(WRITTEN)} are plain tables."
    return Found(fine, objections)


async def unlogged(connection: asyncpg.Connection) -> Found:
    """Look whether every table outlives a crash."""
    rows = await connection.fetch(UNLOGGED, [*WRITTEN, *OURS])
    return Found(
        "Every table outlives a crash of the server.",
        each(
            rows,
            lambda row: stop(
                f"{row['relation']} is temporary."
                if row["persistence"] == "t"
                else f"{row['relation']} is unlogged: a crash empties it.",
                f"ALTER TABLE {row['relation']} SET LOGGED;",
            ),
        ),
    )


async def triggers(connection: asyncpg.Connection) -> Found:
    """Look for triggers that others put on tables that we write."""
    rows = await connection.fetch(TRIGGERS, [*WRITTEN, *OURS, "activity_logs"])
    others = (row for row in rows if row["relation"] != LEGACY or row["name"] not in TRIGGERS_OF_CAPTURE)
    objections = each(others, _trigger)
    for row in await connection.fetch(UNKEPT_KEYS, *WRITTEN):
        objections.append(
            stop(
                f"The foreign key {row['conname']} is not kept: triggers of {row['relation']} are disabled.",
                f"ALTER TABLE {row['relation']} ENABLE TRIGGER ALL;",
            )
        )
    return Found("No trigger can change or refuse what is written.", objections)


def _trigger(row: asyncpg.Record) -> Objection:
    when = {"A": ", always", "R": ", on replicas only"}.get(row["enabled"], "")
    at_commit = ", at COMMIT" if row["is_deferred"] else ""
    return warn(
        f"Trigger {row['name']} of {row['relation']} may {row['may']} our writes: it runs {row['function']}"
        f" on {row['events']}{at_commit}{when}.",
        f"ALTER TABLE {row['relation']} DISABLE TRIGGER {row['name']}; -- unless what it does is wanted",
    )


async def rules(connection: asyncpg.Connection) -> Found:
    """Look for rules, with which statements such as ours are refused or rewritten."""
    rows = await connection.fetch(REWRITE_RULES, [*WRITTEN, *OURS, "activity_logs"])
    return Found(
        "No rule rewrites our statements.",
        each(
            rows,
            lambda row: stop(
                f"Rule {row['name']} of {row['relation']} rewrites or refuses our statements.",
                f"DROP RULE {row['name']} ON {row['relation']};",
            ),
        ),
    )


async def constraints(connection: asyncpg.Connection) -> Found:
    """Look for what the tables demand of rows beside their keys."""
    rows = await connection.fetch(CONSTRAINTS, WRITTEN, TARGET, MOST_LETTERS, KEY)
    indexes = await connection.fetch(UNIQUE_INDEXES, WRITTEN, MOST_LETTERS, KEY)
    strict = await connection.fetch(STRICTER, TARGET, LEGACY, list(COPIED), list(COPIED.values()))
    objections = each((row for row in rows if not row["condeferrable"]), _constraint)
    objections += each(
        indexes,
        lambda row: warn(
            f"{row['relation']} refuses rows that its index does: {row['definition']}.",
            f"DROP INDEX {row['name']}; -- unless every row fulfils it",
        ),
    )
    objections += each(
        strict,
        lambda row: warn(
            f"{TARGET}.{row['name']} takes no NULL, and its column of {LEGACY} does: such events die.",
            f"ALTER TABLE {TARGET} ALTER COLUMN {row['name']} DROP NOT NULL;",
        ),
    )
    return Found("No constraint but the keys refuses rows.", objections)


def _constraint(row: asyncpg.Record) -> Objection:
    return warn(
        f"{row['relation']} refuses rows that {row['name']} does: {row['definition']}.",
        f"ALTER TABLE {row['relation']} DROP CONSTRAINT {row['name']}; -- unless every row fulfils it",
    )


async def deferrable(connection: asyncpg.Connection) -> Found:
    """Look for constraints that are checked at COMMIT, or may be."""
    rows = await connection.fetch(CONSTRAINTS, WRITTEN, TARGET, MOST_LETTERS, KEY)
    return Found(
        "Every constraint is checked at once.",
        each(
            (row for row in rows if row["condeferrable"]),
            lambda row: warn(
                f"Constraint {row['name']} of {row['relation']} is checked at COMMIT"
                f"{'' if row['condeferred'] else ' where asked for'}: a refused row is found late.",
                f"ALTER TABLE {row['relation']} ALTER CONSTRAINT {row['name']} NOT DEFERRABLE;"
                " -- other keys than foreign ones: DROP and ADD CONSTRAINT",
            ),
        ),
    )


async def unique_key(connection: asyncpg.Connection) -> Found:
    """Look whether the target has the key that decides between insert and update."""
    keys = await connection.fetch(KEYS, TARGET, KEY)
    if any(key["is_valid"] and key["is_immediate"] for key in keys):
        return Found(f"{TARGET} has its unique key.")
    if not keys:
        return Found("", [stop(f"{TARGET} has no unique key of {' and '.join(KEY)}.", ADD_KEY)])
    name = keys[0]["name"]
    if not keys[0]["is_valid"]:
        objection = stop(f"{TARGET}'s unique key {name} is not valid.", f"REINDEX INDEX CONCURRENTLY {name};")
    else:
        objection = stop(
            f"{TARGET}'s unique key {name} is deferrable, and ON CONFLICT takes no such key.",
            f"ALTER TABLE {TARGET} DROP CONSTRAINT {name}; {ADD_KEY}",
        )
    return Found("", [objection])


async def children(connection: asyncpg.Connection) -> Found:
    """Look for what hangs on the target's rows, and whether these go with their parents."""
    rows = await connection.fetch(CHILDREN, TARGET)
    parents = await connection.fetch(PARENTS, TARGET, [LEGACY, "projects"])
    objections = each(rows, _child)
    objections += each(
        parents,
        lambda row: warn(
            f"No foreign key of {TARGET} takes its rows along when a row of {row['parent']} is deleted:"
            " they stay as orphans until an audit repairs that.",
            f"ALTER TABLE {TARGET} ADD FOREIGN KEY ({row['parent'].rstrip('s')}_id)"
            f" REFERENCES {row['parent']} ON DELETE CASCADE;",
        ),
    )
    return Found("Nothing hangs on the target's rows, and they go with their parents.", objections)


def _child(row: asyncpg.Record) -> Objection:
    if row["on_delete"] in {"a", "r"}:
        again = f"ADD CONSTRAINT {row['name']} {row['definition']} ON DELETE CASCADE"
        return warn(
            f"Rows of {row['relation']} hold rows of {TARGET} ({row['name']}): deletions of these die.",
            f"ALTER TABLE {row['relation']} DROP CONSTRAINT {row['name']}, {again};",
        )
    return warn(
        f"Rows of {row['relation']} go, or change, with rows of {TARGET} that are deleted ({row['name']}).",
        f"ALTER TABLE {row['relation']} DROP CONSTRAINT {row['name']}; -- unless that is meant",
    )


async def unfilled(connection: asyncpg.Connection) -> Found:
    """Look for columns that keep our INSERT from working."""
    objections: list[Objection] = []
    for relation in WRITTEN:
        objections += each(
            await connection.fetch(UNFILLED, relation, FILLED[relation]),
            lambda row: stop(
                f"{row['relation']}.{row['name']} takes no NULL and has no default: our rows are refused.",
                f"ALTER TABLE {row['relation']} ALTER {row['name']} SET DEFAULT …; -- or DROP NOT NULL",
            ),
        )
        objections += each(await connection.fetch(MADE_BY_THE_TABLE, relation, FILLED[relation]), _made)
    return Found("Every column that we leave out fills itself.", objections)


def _made(row: asyncpg.Record) -> Objection:
    how = "generated" if row["is_generated"] else "an identity that is always drawn"
    drop = "EXPRESSION" if row["is_generated"] else "IDENTITY"
    fix = f"ALTER TABLE {row['relation']} ALTER COLUMN {row['name']} DROP {drop};"
    if row["is_written"]:
        return stop(f"{row['relation']}.{row['name']} is {how}, and we write it.", fix)
    return warn(
        f"{row['relation']}.{row['name']} is {how}: what it cannot make of a row refuses the row.", fix
    )
