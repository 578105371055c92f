"""The view that lists are answered by: whether it is this release's, for whom, and what it hides or shows."""

import asyncpg

from shared.phase.view import FUNCTION, VIEW, body, function, view
from shared.place import PLACE, Place
from worker.preflight.check import Found, Objection, each, stop, warn
from worker.preflight.checks.roles import GRANT
from worker.preflight.needs import API, LEGACY, TARGET

# Catalogs only. A grant to the pseudo-role PUBLIC has the grantee 0.
LOOK = """
    SELECT
        to_regclass($1) IS NOT NULL AS has_view,
        prosrc = $2 AND prosecdef AND provolatile = 's' AS is_ours,
        proowner::regrole::text AS owner,
        EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee = 0) OR proacl IS NULL AS is_open,
        EXISTS (
            SELECT FROM pg_roles
            WHERE rolname = $4 AND has_table_privilege(pg_roles.oid, to_regclass($1), 'SELECT')
                AND NOT has_function_privilege(pg_roles.oid, pg_proc.oid, 'EXECUTE')
        ) AS is_closed
    FROM (VALUES (to_regprocedure($3))) AS named (procedure)
    LEFT JOIN pg_proc ON pg_proc.oid = procedure
"""
# Where the owner is subject to policies as well, rows are hidden from everybody who lists.
SECURED = """
    SELECT oid::regclass::text AS relation, relforcerowsecurity AS is_forced
    FROM pg_class
    WHERE oid IN (to_regclass($1), to_regclass($2)) AND relrowsecurity
    ORDER BY 1
"""
PHASE = "SELECT phase FROM migration_phase WHERE singleton"
PUT_BACK = (
    "INSERT INTO migration_phase (phase, epoch, actor)"
    " SELECT 'outbox', coalesce(max(epoch), 0) + 1, current_user FROM phase_turns;"
)


async def reads(connection: asyncpg.Connection) -> Found:
    """Look whether lists are answered as this release has it, and by whose rights."""
    place = Place(*await connection.fetchrow(PLACE))
    if None in place:
        return Found("")  # `search_path` says which table is away: of this nothing is known
    phase = await connection.fetchval(PHASE)  # that there is such a table says `schema`
    looked = await connection.fetchrow(LOOK, VIEW, body(place), f"{FUNCTION}(text)", API)
    if not looked["has_view"] or looked["owner"] is None:
        sentence = f"There is no {VIEW if looked['owner'] else FUNCTION}: no list is answered."
        return Found("", [stop(sentence, f"{function(place)};\n{view(place)};\n-- then: {GRANT}")])
    objections: list[Objection] = []
    if not looked["is_ours"]:
        sentence = f"{FUNCTION} is not this release's: lists may show what they must not."
        objections.append(stop(sentence, f"{function(place)};"))
    if looked["is_open"]:
        sentence = f"Everybody who may connect may read {LEGACY} by {FUNCTION}."
        objections.append(warn(sentence, f"REVOKE EXECUTE ON FUNCTION {FUNCTION}(text) FROM PUBLIC;"))
    if looked["is_closed"]:
        objections.append(stop(f"{API} may not EXECUTE {FUNCTION}: no list is answered.", GRANT))
    if phase is None:
        sentence = f"The row of migration_phase is gone: reads come from {LEGACY}, and nothing can be turned."
        objections.append(warn(sentence, PUT_BACK))
    secured = await connection.fetch(SECURED, LEGACY, TARGET)
    objections += each(secured, lambda row: _secured(row, looked["owner"]))
    return Found(f"{VIEW} is this release's; the phase is {phase}.", objections)


def _secured(row: asyncpg.Record, owner: str) -> Objection:
    sees = (
        f"it shows what the policies show {owner}"
        if row["is_forced"]
        else "who may read it sees every row, whatever the policies say"
    )
    return warn(
        f"{row['relation']} has row-level security, and {VIEW} reads it as {owner}: {sees}.",
        f"ALTER TABLE {row['relation']} DISABLE ROW LEVEL SECURITY;",
    )
