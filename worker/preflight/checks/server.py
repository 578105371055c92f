"""The server itself: which it is, whether it takes writes and keeps them, and whose time it has."""

import time

import asyncpg

from worker.preflight.check import Found, Objection, each, stop, warn
from worker.preflight.needs import TABLES

FIRST_SUPPORTED = 14  # client_connection_check_interval: who was killed must not keep what they had claimed
MOST_APART_SECONDS = 2.0
WORN_IDS = 1_000_000_000  # of the 2,147,483,648 that PostgreSQL counts to; it freezes rows at 200,000,000
LAST_IDS = 2_000_000_000

SETTINGS = """
    SELECT current_setting('server_version') AS version,
        current_setting('server_encoding') AS encoding,
        current_setting('default_transaction_read_only') AS read_only,
        pg_is_in_recovery() AS is_standby,
        current_setting('fsync') AS fsync,
        current_setting('full_page_writes') AS full_page_writes,
        current_setting('synchronous_commit') AS synchronous_commit,
        current_setting('synchronous_standby_names') <> ''
            AND current_setting('synchronous_commit') NOT IN ('off', 'local')
            AND NOT EXISTS (SELECT FROM pg_stat_replication) AS waits_for_nobody,
        quote_ident(current_database()) AS database
"""
OLDEST_IDS = """
    SELECT quote_ident(datname) AS database, age(datfrozenxid) AS transactions,
        mxid_age(datminmxid) AS multixacts
    FROM pg_database
    ORDER BY greatest(age(datfrozenxid), mxid_age(datminmxid)) DESC
    LIMIT 1
"""
# From 15 on, a database knows its collation's version too; before, each collation does.
DATABASE_COLLATION = """
    SELECT format('DATABASE %I', datname) AS name, datcollversion AS made_with,
        pg_database_collation_actual_version(oid) AS now, quote_ident(datname) AS database
    FROM pg_database
    WHERE datname = current_database() AND datcollversion <> pg_database_collation_actual_version(oid)
"""
COLUMNS_COLLATIONS = """
    SELECT DISTINCT 'COLLATION ' || pg_collation.oid::regcollation AS name, collversion AS made_with,
        pg_collation_actual_version(pg_collation.oid) AS now, quote_ident(current_database()) AS database
    FROM pg_attribute
    JOIN pg_collation ON pg_collation.oid = attcollation
    JOIN unnest($1::text[]) AS ours (relation) ON attrelid = to_regclass(ours.relation)
    WHERE collversion <> pg_collation_actual_version(pg_collation.oid)
"""
WITH_DATABASE_COLLATION = 15


async def version(connection: asyncpg.Connection) -> Found:
    """Look which PostgreSQL it is, and how it stores text."""
    row = await connection.fetchrow(SETTINGS)
    objections = []
    if connection.get_server_version().major < FIRST_SUPPORTED:
        objections.append(
            stop(
                f"PostgreSQL {row['version']} is too old: {FIRST_SUPPORTED} is the first that is supported.",
                "Upgrade the server: https://www.postgresql.org/docs/current/upgrading.html",
            )
        )
    if row["encoding"] != "UTF8":
        objections.append(
            warn(
                f"The database stores text as {row['encoding']}: what it cannot hold is refused.",
                "Restore a dump into CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0;",
            )
        )
    fine = f"PostgreSQL {row['version']}; {FIRST_SUPPORTED} and later are supported."
    return Found(fine, objections)


async def writable(connection: asyncpg.Connection) -> Found:
    """Look whether the server takes writes."""
    row = await connection.fetchrow(SETTINGS)
    objections = []
    if row["is_standby"]:
        objections.append(
            stop(
                "DATABASE_URL leads to a standby, which takes no writes.",
                "Let DATABASE_URL lead to the primary; or, if this is to be it: SELECT pg_promote();",
            )
        )
    if row["read_only"] == "on":
        objections.append(
            stop(
                "Transactions are read-only unless they say otherwise (default_transaction_read_only = on).",
                f"ALTER DATABASE {row['database']} RESET default_transaction_read_only;"
                " -- or ALTER ROLE …, or ALTER SYSTEM RESET …: `defaults` says where it is set",
            )
        )
    return Found("The server takes writes.", objections)


async def durability(connection: asyncpg.Connection) -> Found:
    """Look whether what is committed outlives a crash."""
    row = await connection.fetchrow(SETTINGS)
    objections = [
        warn(
            f"{name} is off: a crash of the machine may ruin the database, acknowledged writes with it.",
            f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();",
        )
        for name in ("fsync", "full_page_writes")
        if row[name] == "off"
    ]
    if row["synchronous_commit"] == "off":
        objections.append(
            warn(
                "synchronous_commit is off: a crash takes back writes that were answered with 200.",
                "ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf();"
                " -- or ALTER DATABASE …, or ALTER ROLE …",
            )
        )
    if row["waits_for_nobody"]:
        objections.append(
            stop(
                "Every commit waits for a standby (synchronous_standby_names), and none is connected.",
                "Start it; or ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf();",
            )
        )
    return Found("What is committed outlives a crash of the server.", objections)


async def wraparound(connection: asyncpg.Connection) -> Found:
    """Look how near the server is to refusing writes for want of transaction ids."""
    row = await connection.fetchrow(OLDEST_IDS)
    objections = []
    for kind in ("transactions", "multixacts"):
        if row[kind] < WORN_IDS:
            continue
        objection = stop if row[kind] >= LAST_IDS else warn
        objections.append(
            objection(
                f"Database {row['database']} is {row[kind]:,} {kind} old:"
                " near 2,147,483,648 the server refuses every write.",
                f"Let a superuser run VACUUM (FREEZE) in {row['database']};"
                " what holds it back is named by `held_back`",
            )
        )
    return Found(f"The oldest database is {row['transactions']:,} transactions old.", objections)


async def collation(connection: asyncpg.Connection) -> Found:
    """Look whether indexes were made with the order of text that is in force now."""
    rows = await connection.fetch(COLUMNS_COLLATIONS, TABLES)
    if connection.get_server_version().major >= WITH_DATABASE_COLLATION:
        rows += await connection.fetch(DATABASE_COLLATION)
    return Found("Indexes have the order of text that is in force.", each(rows, _reordered))


def _reordered(row: asyncpg.Record) -> Objection:
    return warn(
        f"{row['name']} was made with version {row['made_with']} of its order of text, and the server has"
        f" {row['now']}: indexes may miss rows, and unique ones hold some twice.",
        f"REINDEX DATABASE {row['database']}; ALTER {row['name']} REFRESH COLLATION VERSION;",
    )


async def clock(connection: asyncpg.Connection) -> Found:
    """Hold this host's clock against the server's."""
    before = time.time()
    theirs = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    return apart("PostgreSQL", theirs, before, time.time())


def apart(server: str, theirs: float, before: float, after: float) -> Found:
    """Judge a server's time, in seconds since the epoch, read between two of our own."""
    seconds = max(before - theirs, theirs - after, 0.0)
    if seconds > MOST_APART_SECONDS:
        objection = warn(
            f"The clock of {server}'s host and this host's are {seconds:,.0f} s apart.",
            "Let both hosts follow NTP: timedatectl set-ntp true",
        )
        return Found("", [objection])
    return Found(f"The clock of {server}'s host agrees with this host's.")
