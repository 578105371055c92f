"""What waits, which workers there are to apply it, and who holds it up."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.lanes import HIGHEST_KNOWN_LANE, KNOWN_LANES, LOWEST_KNOWN_LANE, NAMES
from shared.verdict.facts import LockHolder, Waiting, Worker

MOST_WORKERS = 100
MOST_COUNTED = 100_000

# Served by worker_processes_pkey; the table holds the processes of an hour.
WORKERS = text("""
    SELECT name, extract(epoch FROM heartbeat_at)::float8 AS heard_at,
        extract(epoch FROM ended_at)::float8 AS ended_at
    FROM worker_processes ORDER BY id DESC LIMIT :most
""")

# Served by outbox_events_claim_order, and outbox_dead_letters_open. Bounded: a backlog of millions, which
# is when an operator looks, must not be counted to its end every five seconds. The oldest of a lane is the
# one with the lowest id: that is the order of appends, but for transactions that were open at the same time.
# As a range in the index's order: by `lane = ` and `id` the planner may read the whole primary key.
# Lanes of versions that we do not know are beyond ours.
LANES = text(f"""
    WITH unknown AS MATERIALIZED (
        SELECT count(*) AS events, min(lane) AS first_lane, max(lane) AS last_lane
        FROM (
            (SELECT lane FROM outbox_events WHERE lane < {LOWEST_KNOWN_LANE}
                ORDER BY lane, id LIMIT :most)
            UNION ALL
            (SELECT lane FROM outbox_events WHERE lane > {HIGHEST_KNOWN_LANE}
                ORDER BY lane DESC, id DESC LIMIT :most)
        ) AS beyond
    )
    SELECT
        waiting.lane,
        (SELECT count(*) FROM (
            SELECT FROM outbox_events AS event
            WHERE event.lane BETWEEN waiting.lane AND waiting.lane ORDER BY event.lane, event.id LIMIT :most
        ) AS counted) AS pending,
        greatest(0, coalesce((
            SELECT extract(epoch FROM clock_timestamp() - event.created_at) FROM outbox_events AS event
            WHERE event.lane BETWEEN waiting.lane AND waiting.lane ORDER BY event.lane, event.id LIMIT 1
        ), 0))::float8 AS oldest_seconds,
        (SELECT count(*) FROM outbox_dead_letters WHERE closed_at IS NULL) AS dead_letters,
        unknown.events AS unknown_events, unknown.first_lane, unknown.last_lane,
        extract(epoch FROM clock_timestamp())::float8 AS database_time
    FROM unknown, (VALUES {", ".join(f"({lane})" for lane in KNOWN_LANES)}) AS waiting (lane)
""")  # noqa: S608 - constants

# Reads no table, only the server's lists of sessions and locks; any role may. Of other roles' sessions it is
# not shown since when they last, without pg_read_all_stats. Between two attempts nothing of ours waits for a
# lock on a whole table: that is looked for itself, in the modes that keep writers out. A prepared transaction
# is pid 0.
HOLDERS = text("""
    WITH waiting AS MATERIALIZED (
        SELECT application_name, unnest(pg_blocking_pids(activity.pid)) AS holder, (
            SELECT max(clock_timestamp() - waitstart) FROM pg_locks AS lock
            WHERE lock.pid = activity.pid AND NOT granted
        ) AS waited
        FROM pg_stat_activity AS activity
        WHERE datname = current_database() AND application_name LIKE 'collection-sync%'
            AND activity.pid <> pg_backend_pid()
        LIMIT 1000
    ), holder AS (
        SELECT holder AS pid, max(application_name) AS waiting, max(waited) AS waited
        FROM waiting GROUP BY holder
        UNION ALL
        SELECT DISTINCT coalesce(lock.pid, 0), NULL, NULL::interval FROM pg_locks AS lock
        WHERE locktype = 'relation' AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND relation IN (SELECT to_regclass(name) FROM unnest(
                ARRAY['project_collections', 'applied_versions', 'outbox_events', 'outbox_dead_letters',
                    'backfill_runs', 'audit_runs', 'worker_processes']) AS name)
            AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    )
    SELECT holder.pid, max(session.application_name) AS application, max(session.usename) AS role,
        extract(epoch FROM clock_timestamp() - max(session.xact_start))::float8 AS held_seconds,
        max(holder.waiting) AS waiting, extract(epoch FROM max(holder.waited))::float8 AS waited_seconds
    FROM holder LEFT JOIN pg_stat_activity AS session ON session.pid = holder.pid
    WHERE session.application_name IS NULL OR session.application_name NOT LIKE 'collection-sync%'
    GROUP BY holder.pid ORDER BY held_seconds DESC NULLS LAST, holder.pid
    LIMIT 10
""")


async def workers(connection: AsyncConnection) -> list[Worker]:
    """Return the worker processes of the last hour, the newest first."""
    found = await connection.execute(WORKERS, {"most": MOST_WORKERS})
    return [Worker(*row) for row in found]


async def lanes(connection: AsyncConnection) -> tuple[dict[str, Waiting], int]:
    """Return what waits by lane, and how many events are of a later version than this release knows.

    Served by outbox_events_claim_order, and counted up to MOST_COUNTED, as for a worker's heartbeat.
    """
    rows = (await connection.execute(LANES, {"most": MOST_COUNTED})).all()
    found: dict[str, Waiting] = {}
    for name in NAMES.values():
        of_name = [row for row in rows if KNOWN_LANES[row.lane] == name]
        pending = sum(row.pending for row in of_name)
        oldest = max(row.oldest_seconds for row in of_name) if pending else None
        found[name] = Waiting(pending, oldest)
    return found, rows[0].unknown_events


async def holders(connection: AsyncConnection) -> list[LockHolder]:
    """Return the sessions of others that hold ours up, or will; those that have for longest first."""
    return [LockHolder(*row) for row in await connection.execute(HOLDERS)]
