"""What no trigger of the capture sees, as far as the catalogs show it."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# Nothing of either kind runs triggers that are enabled as usual, and ours are.
NEVER_SEEN = (
    "Sessions with session_replication_role = replica, and logical replication's apply run no trigger.",
    "Single rows that TRUNCATE removes: it counts as one write, and gets no event. The target's go with it.",
    "Writes that ran while the triggers were disabled or not installed.",
)
# Catalogs only. A database's setting has no role, and a role's may have no database.
REPLICA_SETTINGS = """
    SELECT coalesce(quote_ident(rolname), 'every login') FROM pg_db_role_setting
    LEFT JOIN pg_roles ON pg_roles.oid = setrole
    WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
        AND 'session_replication_role=replica' = ANY(setconfig)
    ORDER BY 1
"""
APPLIED_BY_REPLICATION = text("""
    SELECT count(*) FROM pg_subscription_rel WHERE srrelid = to_regclass('collections')
""")


async def unseen(connection: AsyncConnection) -> list[str]:
    """Return a sentence for each way past the triggers that this database has at the moment."""
    found = (await connection.execute(text(REPLICA_SETTINGS))).scalars()
    said = [f"{role} has session_replication_role = replica here." for role in found]
    if (await connection.execute(APPLIED_BY_REPLICATION)).scalar_one():
        said.append("A subscription of logical replication writes `collections`.")
    return said
