"""What operators and the monolith do to a database under us, and take back after a while."""

import asyncio
import contextlib
import random
import time

import asyncpg

from tests.chaos.fault import Inflict
from tests.chaos.system import QUIET_COLLECTIONS, System, connected
from tests.processes import HANG_SECONDS
from tests.security.as_role import ROLES_SQL

LEAST_SECONDS = 0.3
COMPLAINTS = ('"batch_failed"', '"database_unavailable"')  # of what PostgreSQL does not do for a process
ENDS_IN_A_ROW = 10

HIDE = "ALTER TABLE {} ENABLE ROW LEVEL SECURITY", "ALTER TABLE {} DISABLE ROW LEVEL SECURITY"
RENAME = "ALTER TABLE {} RENAME TO away", "ALTER TABLE away RENAME TO {}"
REVOKE = "REVOKE ALL ON {} FROM collection_sync_api, collection_sync_worker", ROLES_SQL
# Holds for sessions that begin from then on.
FORBID_WRITES = (
    "ALTER DATABASE postgres SET default_transaction_read_only = on",
    "ALTER DATABASE postgres RESET default_transaction_read_only",
)
TERMINATE = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'collection-sync%'
"""

# In the order in which workers lock them, so that nobody waits for each other.
HOLD_ROWS = """
    SELECT count(*) FROM (
        SELECT FROM collections WHERE project_id = 'p1' AND is_active ORDER BY collection_id FOR UPDATE
    ) AS held
"""
WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'collection-sync api'
        AND wait_event_type = 'Lock'
"""
SLEEPING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
)

# With its owner's rights, a superuser's: nobody else may start a program.
TRIGGER = """
    CREATE FUNCTION troublesome() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN {body} RETURN NEW; END $$;
    CREATE TRIGGER troublesome BEFORE INSERT OR UPDATE ON project_collections
        FOR EACH ROW EXECUTE FUNCTION troublesome();
"""
TAKE_TRIGGER_BACK = "DROP FUNCTION troublesome CASCADE"
SLOW = "PERFORM pg_sleep(0.04);"
# As a fault of PostgreSQL's own, or the kernel for want of memory, would end the session's process.
LETHAL = "IF NEW.collection_id = '{}' THEN COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'; END IF;"
RECOVERING = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
CRASHED = "was terminated by signal 9"
APPEND = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.updated', 'api', jsonb_build_object('project_id', project_id,
        'research_context', description, 'created_at', created_at, 'updated_at', updated_at)
    FROM collections WHERE collection_id = $1
    RETURNING id
"""
DIED = "SELECT count(*) FROM outbox_dead_letters WHERE id = $1"


def spell(cast: tuple[str, str], *tables: str, ending_sessions: bool = False) -> Inflict:
    """Do something to one of these tables, or to all, and take it back once processes have complained.

    The fault's evidence is the number of their complaints.
    """

    async def inflict(system: System, dice: random.Random, pace: float) -> int:
        table = dice.choice(tables) if tables else ""
        begin, end = (statement.replace("{}", table) for statement in cast)
        async with connected(system.postgres) as sql:
            await sql.execute(begin)
            try:
                if ending_sessions:
                    await sql.execute(TERMINATE)
                return await complaints(system, pace * dice.uniform(1, 3))
            finally:
                await sql.execute(end)

    return inflict


async def complaints(system: System, seconds: float) -> int:
    """Wait so long, and until a process has complained; return how often any did meanwhile."""
    seen = {life: len(life.lines) for process in system.processes for life in process.lives}
    until, count = time.monotonic() + seconds, 0
    async with asyncio.timeout(HANG_SECONDS):
        while not count or time.monotonic() < until:
            await asyncio.sleep(0.05)
            lives = [life for process in system.processes for life in process.lives]
            new = [line for life in lives for line in life.lines[seen.get(life, 0) :]]
            count = sum(any(event in line for event in COMPLAINTS) for line in new)
    return count


async def terminate_sessions(system: System, _dice: random.Random, pace: float) -> int:
    """End all sessions of ours ten times in a row, each time as soon as there are any again."""
    ended = rounds = 0
    async with connected(system.postgres) as sql, asyncio.timeout(HANG_SECONDS):
        while rounds < ENDS_IN_A_ROW:
            count = await sql.fetchval(TERMINATE)
            ended, rounds = ended + count, rounds + (count > 0)
            await asyncio.sleep(pace * 0.2)
    return ended


async def exhaust_pools(system: System, dice: random.Random, pace: float) -> int:
    """Lock what users write to, so that requests keep their connections; return how many waited at most."""
    async with connected(system.postgres) as sql, sql.transaction():
        await sql.fetchval(HOLD_ROWS)
        return await most_at_once(system, WAITING, pace * dice.uniform(1, 2))


async def slow_down(system: System, dice: random.Random, pace: float) -> int:
    """Let each row of the target take 40 ms; return how many sessions wrote one at once, at most."""
    async with connected(system.postgres) as sql:
        await sql.execute(TRIGGER.format(body=SLOW))
        try:
            return await most_at_once(system, SLEEPING, pace * dice.uniform(1, 3))
        finally:
            await sql.execute(TAKE_TRIGGER_BACK)


async def most_at_once(system: System, sessions: str, seconds: float) -> int:
    """Wait so long, and until there are such sessions; return how many there were at the same time."""
    most, began = 0, time.monotonic()
    async with connected(system.postgres) as observer:
        while time.monotonic() < began + (max(LEAST_SECONDS, seconds) if most else HANG_SECONDS):
            most = max(most, await observer.fetchval(sessions))
            await asyncio.sleep(0.05)
    return most


async def crash_by_row(system: System, dice: random.Random, _pace: float) -> int:
    """Append an event whose row crashes the server, until it is set aside; return the number of crashes."""
    collection_id = f"quiet-{dice.randrange(1, QUIET_COLLECTIONS + 1)}"
    before = seen = system.postgres.log.read_text().count(CRASHED)
    async with connected(system.postgres) as sql:
        await sql.execute(TRIGGER.format(body=LETHAL.format(collection_id)))
        event_id = await sql.fetchval(APPEND, collection_id)
    system.planted[event_id] = "dead"
    seen_at, is_dead = time.monotonic(), False
    async with asyncio.timeout(HANG_SECONDS):
        while not is_dead:
            now, count = time.monotonic(), system.postgres.log.read_text().count(CRASHED)
            if count > seen:
                system.crashes.append(seen_at)  # when it had not happened yet
            seen, seen_at = count, now
            with contextlib.suppress(*RECOVERING):
                async with connected(system.postgres) as sql:
                    is_dead = await sql.fetchval(DIED, event_id) > 0
            await asyncio.sleep(0.02)
    async with connected(system.postgres) as sql:
        await sql.execute(TAKE_TRIGGER_BACK)
    return seen - before
