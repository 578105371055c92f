"""Whether PostgreSQL can forget the events that were acknowledged: else each claim walks over all of them."""

import asyncpg

from worker.preflight.check import Found, each, warn
from worker.preflight.needs import LEGACY, OURS, TARGET

OLD_SECONDS = 60.0
OLD_TRANSACTIONS = 100_000  # that began since: the measure where a role may not see times

SWITCHES = """
    SELECT name FROM unnest(ARRAY['autovacuum', 'track_counts']) AS name
    WHERE current_setting(name) = 'off'
    ORDER BY name
"""
SWITCHED_OFF = """
    SELECT oid::regclass::text AS relation
    FROM pg_class
    JOIN unnest($1::text[]) AS ours (name) ON oid = to_regclass(name)
    CROSS JOIN unnest(reloptions) AS option
    WHERE option ~* '^autovacuum_enabled=(off|false|no|0|f|n)$'
    ORDER BY 1
"""
# When other roles' transactions began, PostgreSQL shows only to members of pg_read_all_stats.
SESSIONS = """
    SELECT pid, usename::text AS login, application_name,
        extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
    FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND (datname = current_database() OR datname IS NULL)
        AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)
        AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
        AND (
            clock_timestamp() - xact_start >= make_interval(secs => $1)
            OR greatest(age(backend_xid), age(backend_xmin)) >= $2
        )
    ORDER BY xact_start
"""
PREPARED = """
    SELECT gid, owner::text AS owner, extract(epoch FROM clock_timestamp() - prepared)::float8 AS seconds
    FROM pg_prepared_xacts
    WHERE database = current_database()
    ORDER BY prepared
"""
SLOTS = """
    SELECT slot_name::text AS name, active, greatest(age(xmin), age(catalog_xmin)) AS transactions
    FROM pg_replication_slots
    WHERE NOT active AND (restart_lsn IS NOT NULL OR xmin IS NOT NULL OR catalog_xmin IS NOT NULL)
        OR greatest(age(xmin), age(catalog_xmin)) >= $1
    ORDER BY slot_name
"""


async def autovacuum(connection: asyncpg.Connection) -> Found:
    """Look whether our tables are vacuumed by themselves."""
    objections = each(
        await connection.fetch(SWITCHES),
        lambda row: warn(
            f"{row['name']} is off: the outbox grows with every event, and statements slow down.",
            f"ALTER SYSTEM SET {row['name']} = on; SELECT pg_reload_conf();",
        ),
    )
    objections += each(
        await connection.fetch(SWITCHED_OFF, [LEGACY, TARGET, *OURS]),
        lambda row: warn(
            f"Autovacuum is off for {row['relation']}, which grows with every change.",
            f"ALTER TABLE {row['relation']} RESET (autovacuum_enabled);",
        ),
    )
    return Found("Autovacuum is on.", objections)


async def held_back(connection: asyncpg.Connection) -> Found:
    """Look who keeps PostgreSQL from forgetting what was deleted."""
    objections = each(
        await connection.fetch(SESSIONS, OLD_SECONDS, OLD_TRANSACTIONS),
        lambda row: warn(
            f"Session {row['pid']} ({row['login']}, {row['application_name'] or 'unnamed'}) has a transaction"
            f" open{_for(row['seconds'])}: what was deleted since stays.",
            f"SELECT pg_terminate_backend({row['pid']});",
        ),
    )
    objections += each(
        await connection.fetch(PREPARED),
        lambda row: warn(
            f"{row['owner']} prepared transaction {row['gid']!r} and did not end it{_for(row['seconds'])}.",
            "ROLLBACK PREPARED {};".format("'" + row["gid"].replace("'", "''") + "'"),
        ),
    )
    objections += each(
        await connection.fetch(SLOTS, OLD_TRANSACTIONS),
        lambda row: warn(
            f"Replication slot {row['name']} is {'far behind' if row['active'] else 'inactive'} and keeps"
            " what its reader has not had: the disk fills up.",
            f"SELECT pg_drop_replication_slot('{row['name']}'); -- unless its reader comes back",
        ),
    )
    return Found("Nobody keeps what was deleted from being forgotten.", objections)


def _for(seconds: float | None) -> str:
    return "" if seconds is None else f" for {seconds:,.0f} s"
