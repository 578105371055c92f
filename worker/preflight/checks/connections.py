"""Whether there is room for the connections that our processes open."""

import asyncpg

from shared.postgres.pooler import PooledConnection
from worker.preflight.check import Found, Objection, stop, warn
from worker.preflight.checks.roles import LOGINS
from worker.preflight.needs import API, OPERATOR, WORKER

# A test holds these against the pools: to import what makes them would take as long as all checks.
OF_API = 13
OF_WORKER = 17
OF_COMMAND = 3
NEEDED = {API: OF_API, WORKER: OF_WORKER, OPERATOR: OF_COMMAND}

# An autovacuum worker and others that serve the server itself take no place of a client's.
PLACES = """
    SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true)::int, 0) AS places,
        (
            SELECT count(*) FROM pg_stat_activity
            WHERE backend_type = 'client backend' AND application_name NOT LIKE 'collection-sync %'
        ) AS taken,
        quote_ident(datname) AS database, datconnlimit AS most, (
            SELECT count(*) FROM pg_stat_activity
            WHERE pg_stat_activity.datname = current_database()
                AND application_name NOT LIKE 'collection-sync %'
        ) AS taken_of_database
    FROM pg_database
    WHERE datname = current_database()
"""
LIMITED_LOGINS = f"""{LOGINS}
    SELECT DISTINCT quote_ident(rolname) AS login, role, rolconnlimit AS most
    FROM logins
    WHERE rolconnlimit >= 0 AND NOT rolsuper
    ORDER BY 1
"""  # noqa: S608 - a constant


async def connections(connection: asyncpg.Connection) -> Found:
    """Hold what one API, one worker and a command open at most against what is left."""
    row = await connection.fetchrow(PLACES)
    needed = sum(NEEDED.values())
    left = row["places"] - row["taken"]
    objections: list[Objection] = []
    if left < needed and not is_pooled(connection):
        objections.append(
            _scarce(
                f"PostgreSQL has {max(left, 0)} connections left of {row['places']}",
                left,
                f"ALTER SYSTEM SET max_connections = {row['places'] + needed - left + 10};"
                " -- and restart; or put a pooler in front: docs/scaling.md",
            )
        )
    if row["most"] >= 0 and row["most"] - row["taken_of_database"] < needed:
        left = row["most"] - row["taken_of_database"]
        objections.append(
            _scarce(
                f"Database {row['database']} takes {row['most']} connections at most",
                left,
                f"ALTER DATABASE {row['database']} CONNECTION LIMIT {row['most'] + needed - left};",
            )
        )
    objections += [
        _scarce(
            f"Login {login['login']} may open {login['most']} connections",
            login["most"],
            f"ALTER ROLE {login['login']} CONNECTION LIMIT {NEEDED[login['role']]};",
            f"it needs {NEEDED[login['role']]}",
        )
        for login in await connection.fetch(LIMITED_LOGINS, list(NEEDED))
        if login["most"] < NEEDED.get(login["role"], 0)
    ]
    return Found(
        f"An API, a worker and a command open {needed} connections; {max(left, 0)} are left.", objections
    )


def _scarce(what: str, left: int, fix: str, needed: str = "") -> Objection:
    needed = needed or f"an API ({OF_API}), a worker ({OF_WORKER}) and a command ({OF_COMMAND}) open more"
    return (warn if left > 0 else stop)(f"{what}; {needed}.", fix)


async def pooler(connection: asyncpg.Connection) -> Found:
    """Look how sessions keep their settings; where they do not, none was opened."""
    if is_pooled(connection):
        return Found("Through the pooler, each transaction brings its settings along.")
    return Found("Sessions keep their settings; DATABASE_POOLER is not set, and need not be.")


def is_pooled(connection: asyncpg.Connection) -> bool:
    """Return whether the session is a pooler's; asyncpg takes any connection for an instance of any class."""
    return issubclass(type(connection), PooledConnection)
