"""Who our processes log in as, what they may and may see, and who else writes what they write."""

import itertools
from collections.abc import Sequence

import asyncpg

from worker.preflight.check import Found, Objection, each, stop, warn
from worker.preflight.needs import API, LEGACY, NEEDS, OPERATOR, OURS, ROLES, TARGET, WORKER, needs

GRANT = 'psql --set=ON_ERROR_STOP=1 --file=deploy/roles.sql "$OWNER_URL"'
DAYS_AHEAD = 14
REQUIRED = (API, WORKER, OPERATOR)  # of the others dashboards and scaling depend

# Our logins: members of our roles, of their members, and so on; and who is asking. From PostgreSQL 16 on, who
# made a role may give it to others, and is no more of a member than that.
LOGINS = """
    WITH RECURSIVE ours (oid, role) AS (
        SELECT oid, rolname::text FROM pg_roles WHERE rolname = ANY($1::text[])
        UNION
        SELECT member, ours.role FROM pg_auth_members JOIN ours ON roleid = ours.oid
        WHERE coalesce((to_jsonb(pg_auth_members) ->> 'inherit_option')::boolean, true)
            OR coalesce((to_jsonb(pg_auth_members) ->> 'set_option')::boolean, true)
    ), logins AS (
        SELECT pg_roles.*, ours.role
        FROM ours JOIN pg_roles USING (oid)
        WHERE rolcanlogin
        UNION ALL
        SELECT pg_roles.*, NULL
        FROM pg_roles WHERE rolname = current_user AND oid NOT IN (SELECT oid FROM ours)
    )
"""
HERE = """
    SELECT
        EXISTS (
            SELECT FROM pg_roles WHERE rolname = ANY($1::text[]) AND pg_has_role(oid, 'MEMBER')
        ) AS is_member,
        EXISTS (
            SELECT FROM pg_class CROSS JOIN aclexplode(relacl)
            JOIN unnest($2::text[]) AS ours (relation) ON pg_class.oid = to_regclass(ours.relation)
            JOIN pg_roles ON pg_roles.oid = grantee AND rolname = ANY($1::text[])
        ) AS is_granted,
        (
            SELECT bool_and(pg_has_role(relowner, 'USAGE'))
            FROM pg_class JOIN unnest($2::text[]) AS ours (relation) ON oid = to_regclass(ours.relation)
        ) AS is_owner,
        quote_ident(current_user) AS login
"""
MISSING = """
    SELECT needed.role, relation, privilege, column_name
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
        AS needed (role, relation, column_name, privilege)
    JOIN pg_roles ON rolname = needed.role
    JOIN pg_class ON pg_class.oid = to_regclass(relation)
    LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND attname = column_name AND NOT attisdropped
    WHERE NOT CASE
        WHEN relkind = 'S' THEN has_sequence_privilege(pg_roles.oid, pg_class.oid, privilege)
        WHEN column_name IS NULL THEN has_table_privilege(pg_roles.oid, pg_class.oid, privilege)
        WHEN attnum IS NULL THEN true -- `columns` reports it
        ELSE has_column_privilege(pg_roles.oid, pg_class.oid, attnum, privilege)
    END
    UNION ALL
    SELECT rolname, 'database ' || current_database(), privilege, NULL
    FROM pg_roles CROSS JOIN (VALUES ('CONNECT'), ('TEMPORARY')) AS of_database (privilege)
    WHERE rolname = ANY($1) AND (privilege = 'CONNECT' OR rolname = ANY($5::text[]))
        AND NOT has_database_privilege(oid, current_database(), privilege)
    UNION ALL
    SELECT rolname, 'schema ' || relnamespace::regnamespace, 'USAGE', NULL
    FROM pg_roles CROSS JOIN pg_class
    WHERE rolname = ANY($1) AND pg_class.oid = to_regclass($6)
        AND NOT has_schema_privilege(pg_roles.oid, relnamespace, 'USAGE')
    ORDER BY 1, 2, 3, 4
"""
LOGINS_ENDS = f"""{LOGINS}
    SELECT DISTINCT quote_ident(rolname) AS login, role, rolvaliduntil::text AS valid_until,
        rolvaliduntil <= now() AS is_over,
        rolvaliduntil <= now() + make_interval(days => $2) AS is_soon_over,
        role IS NULL OR pg_has_role(oid, role, 'USAGE') AS inherits
    FROM logins
    ORDER BY 1, 2
"""  # noqa: S608 - a constant
HIDDEN = f"""{LOGINS}
    SELECT pg_class.oid::regclass::text AS relation, quote_ident(rolname) AS login
    FROM unnest($2::text[], $3::text[]) AS used (by, relation)
    JOIN pg_class ON pg_class.oid = to_regclass(used.relation) AND relrowsecurity
    JOIN logins ON coalesce(logins.role, '') = used.by
    WHERE NOT rolsuper AND NOT rolbypassrls
        AND (relforcerowsecurity OR NOT pg_has_role(logins.oid, relowner, 'USAGE'))
    GROUP BY 1, 2
    ORDER BY 1, 2
"""  # noqa: S608 - a constant
OTHERS = f"""{LOGINS}
    SELECT quote_ident(rolname) AS login
    FROM pg_roles JOIN pg_class ON pg_class.oid = to_regclass($2)
    WHERE rolcanlogin AND NOT rolsuper AND pg_roles.oid NOT IN (SELECT oid FROM logins WHERE role IS NOT NULL)
        AND ($3 OR rolname <> current_user)
        AND (
            has_table_privilege(pg_roles.oid, pg_class.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
            OR has_any_column_privilege(pg_roles.oid, pg_class.oid, 'INSERT, UPDATE')
        )
    ORDER BY 1
"""  # noqa: S608 - a constant
# A function may name the target in a comment only, and build the name of a table that it writes: a hint.
WRITING_TRIGGERS = """
    SELECT tgrelid::regclass::text AS relation, quote_ident(tgname) AS name, tgfoid::regproc::text AS function
    FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
    WHERE NOT tgisinternal AND tgenabled <> 'D' AND strpos(prosrc, $1) > 0 AND tgrelid <> to_regclass($1)
    ORDER BY 1, 2
"""
SUBSCRIBED = """
    SELECT srrelid::regclass::text AS relation
    FROM pg_subscription_rel
    JOIN unnest($1::text[]) AS ours (relation) ON srrelid = to_regclass(ours.relation)
    ORDER BY 1
"""


async def grants(connection: asyncpg.Connection) -> Found:
    """Hold what our roles may do against what the processes need."""
    relations = sorted({need.relation for need in needs()} | {*OURS})
    here = await connection.fetchrow(HERE, ROLES, relations)
    if not here["is_granted"] and here["is_owner"]:
        return Found(
            f"{here['login']} owns the tables: processes that log in so need nothing more."
            f" For least privilege: {GRANT}"
        )
    there = {
        row["rolname"]
        for row in await connection.fetch(
            "SELECT rolname::text FROM pg_roles WHERE rolname = ANY($1::text[])", ROLES
        )
    }
    objections = [
        (stop if role in REQUIRED else warn)(f"There is no role {role}.", GRANT)
        for role in ROLES
        if role not in there
    ]
    if not (here["is_owner"] or here["is_member"]):
        sentence = (
            f"{here['login']} is in none of our roles, and does not own the tables: no process works so."
        )
        objections.append(
            stop(sentence, f"GRANT … TO {here['login']}; -- one of the roles of deploy/roles.sql")
        )
    columns = map(list, zip(*needs(), strict=True))
    rows = await connection.fetch(MISSING, *columns, [WORKER, OPERATOR], LEGACY)
    for (role, relation), missing in itertools.groupby(rows, lambda row: (row["role"], row["relation"])):
        objections.append(_lacks(role, relation, list(missing)))
    return Found(f"The {len(there)} roles hold what deploy/roles.sql grants.", objections)


def _lacks(role: str, relation: str, missing: Sequence[asyncpg.Record]) -> Objection:
    words = [
        privilege
        if (columns := [row["column_name"] for row in rows]) == [None]
        else f"{privilege} ({', '.join(columns)})"
        for privilege, rows in (
            (privilege, list(rows))
            for privilege, rows in itertools.groupby(missing, lambda row: row["privilege"])
        )
    ]
    objection = stop if role in REQUIRED else warn
    return objection(f"{role} lacks {', '.join(words)} on {relation}.", GRANT)


async def logins(connection: asyncpg.Connection) -> Found:
    """Look whether our logins have what their roles hold, and their passwords time left."""
    objections: list[Objection] = []
    for row in await connection.fetch(LOGINS_ENDS, ROLES, DAYS_AHEAD):
        login = row["login"]
        if not row["inherits"]:
            sentence = f"Login {login} is in {row['role']} and does not inherit what that may do."
            objections.append(stop(sentence, f"ALTER ROLE {login} INHERIT; GRANT {row['role']} TO {login};"))
        if row["is_soon_over"]:
            ends = f"{'ended' if row['is_over'] else 'ends'} on {row['valid_until']}"
            objection = stop if row["is_over"] else warn
            objections.append(
                objection(
                    f"The password of login {login} {ends}.", f"ALTER ROLE {login} VALID UNTIL 'infinity';"
                )
            )
    return Found("Logins have what their roles may do, and passwords that do not end soon.", objections)


async def row_security(connection: asyncpg.Connection) -> Found:
    """Look for tables that would show our processes a part of their rows."""
    used = [(role, relation) for role, relations in NEEDS.items() for relation in relations]
    used += [("", relation) for relation in {relation for _, relation in used}]  # who is asking
    rows = await connection.fetch(HIDDEN, ROLES, *map(list, zip(*used, strict=True)))
    return Found(
        "Row-level security hides no row from our processes.",
        each(
            rows,
            lambda row: stop(
                f"Row-level security of {row['relation']} may hide rows from {row['login']}:"
                " our sessions take that for an error.",
                f"ALTER ROLE {row['login']} BYPASSRLS; -- as a superuser;"
                f" or ALTER TABLE {row['relation']} DISABLE ROW LEVEL SECURITY;",
            ),
        ),
    )


async def other_writers(connection: asyncpg.Connection) -> Found:
    """Look who else may write the target: logins, triggers of other tables, subscriptions."""
    here = await connection.fetchrow(HERE, ROLES, OURS)  # without roles, who is asking is one of our logins
    objections = each(
        await connection.fetch(OTHERS, ROLES, TARGET, here["is_granted"]),
        lambda row: warn(
            f"{row['login']}, which is none of our logins, may write {TARGET}; it may be the monolith.",
            f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {TARGET} FROM {row['login']};"
            " -- once it writes nothing there that is projected",
        ),
    )
    objections += each(
        await connection.fetch(WRITING_TRIGGERS, TARGET),
        lambda row: warn(
            f"Trigger {row['name']} of {row['relation']} runs {row['function']}, which names {TARGET}.",
            f"ALTER TABLE {row['relation']} DISABLE TRIGGER {row['name']}; -- if it writes what is projected",
        ),
    )
    objections += each(
        await connection.fetch(SUBSCRIBED, [LEGACY, TARGET, *OURS]),
        lambda row: stop(
            f"A subscription writes {row['relation']}: this database follows another.",
            "DROP SUBSCRIPTION …; -- once this is to be the primary",
        ),
    )
    return Found(f"Nobody else may write {TARGET}.", objections)
