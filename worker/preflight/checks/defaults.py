"""What others have set for the database or for our logins, and sessions would find in force."""

import re
from collections.abc import Callable, Mapping

import asyncpg

from worker.preflight.check import Found, Objection, stop, warn
from worker.preflight.checks.connections import is_pooled
from worker.preflight.checks.roles import LOGINS, REQUIRED
from worker.preflight.needs import LEGACY, ROLES

SHORT_SECONDS = 5.0
UNITS = {"us": 1e-6, "ms": 1e-3, "": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400}
TIME = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*")

SET = f"""{LOGINS}
    SELECT DISTINCT split_part(setting, '=', 1) AS name, substr(setting, strpos(setting, '=') + 1) AS value,
        CASE
            WHEN setrole = 0 AND setdatabase = 0 THEN 'ROLE ALL'
            WHEN setrole = 0 THEN format('DATABASE %I', current_database())
            WHEN setdatabase = 0 THEN format('ROLE %I', rolname)
            ELSE format('ROLE %I IN DATABASE %I', rolname, current_database())
        END AS whose,
        (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass($2)) AS schema
    FROM pg_db_role_setting
    LEFT JOIN logins ON logins.oid = setrole
    CROSS JOIN unnest(setconfig) AS setting
    WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
        AND (setrole = 0 OR logins.oid IS NOT NULL AND coalesce(logins.role = ANY($3), true))
    ORDER BY 1, 3
"""  # noqa: S608 - a constant

Judge = Callable[[asyncpg.Record, str, str], Objection | None]


async def defaults(connection: asyncpg.Connection) -> Found:
    """Look for settings that keep our sessions from working, or the monolith's that append events."""
    judges = {**JUDGES, **(IN_POOLED_SESSIONS if is_pooled(connection) else {})}
    objections = []
    for row in await connection.fetch(SET, ROLES, LEGACY, REQUIRED):
        what = f"{row['name']} is {row['value']} for {row['whose']}"
        reset = f"ALTER {row['whose']} RESET {row['name']};"
        if row["name"] in judges and (objection := judges[row["name"]](row, what, reset)) is not None:
            objections.append(objection)
    return Found("No default of the database or of our logins stands in the way.", objections)


def _read_only(row: asyncpg.Record, what: str, reset: str) -> Objection | None:
    return None if row["value"] in {"off", "false", "no", "0"} else stop(f"{what}: no write succeeds.", reset)


def _isolation(row: asyncpg.Record, what: str, reset: str) -> Objection | None:
    if row["value"] == "read committed":
        return None
    return warn(
        f"{what}: our sessions ask for read committed; code of the monolith that appends events does not,"
        " and its writes fail with 40001.",
        reset,
    )


def _search_path(row: asyncpg.Record, what: str, _reset: str) -> Objection | None:
    schemas = [name.strip().strip('"') for name in row["value"].split(",")]
    if row["schema"] is None or row["schema"].strip('"') in schemas:
        return None
    fix = f"ALTER {row['whose']} SET search_path = {row['schema']};"
    return stop(f"{what}: the tables lie in {row['schema']} and are not found.", fix)


def _replication_role(row: asyncpg.Record, what: str, reset: str) -> Objection | None:
    return None if row["value"] == "origin" else stop(f"{what}: foreign keys are not kept.", reset)


def _short(row: asyncpg.Record, what: str, reset: str) -> Objection | None:
    seconds = _seconds(row["value"])
    if not 0 < seconds < SHORT_SECONDS:
        return None
    return warn(
        f"{what}: our sessions set limits of their own; code of the monolith that appends events is cut off.",
        reset,
    )


def _ends_transactions(row: asyncpg.Record, what: str, reset: str) -> Objection | None:
    return warn(f"{what}: audits that take longer are cut off.", reset) if _seconds(row["value"]) else None


def _ends_sessions(row: asyncpg.Record, what: str, reset: str) -> Objection | None:
    if not _seconds(row["value"]):
        return None
    return warn(
        f"{what}: connections that rest in our pools are ended, and opened anew for the next request.", reset
    )


def _seconds(value: str) -> float:
    """Read a time as PostgreSQL's settings have it: in milliseconds unless it says otherwise."""
    read = TIME.fullmatch(value)
    return float(read[1]) * UNITS.get(read[2], 0) if read else 0


JUDGES: Mapping[str, Judge] = {
    "default_transaction_read_only": _read_only,
    "default_transaction_isolation": _isolation,
    "search_path": _search_path,
    "session_replication_role": _replication_role,
    "statement_timeout": _short,
    "lock_timeout": _short,
    "idle_in_transaction_session_timeout": _short,
    "transaction_timeout": _short,
    "idle_session_timeout": _ends_sessions,
}
# A session of our own sets it to 0, one of a pooler's cannot: before PostgreSQL 17 there is none.
IN_POOLED_SESSIONS: Mapping[str, Judge] = {"transaction_timeout": _ends_transactions}
