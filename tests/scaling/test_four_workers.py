"""Four worker processes on one database, and users who write to the same few rows all the time."""

import asyncio
import itertools
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.events import EventType, Source
from shared.outbox import append_states
from shared.redis.doorbell import ring
from tests.doorbell.place import names_of
from tests.drift import drained, drift
from tests.legacy_rows import seed
from tests.processes import HANG_SECONDS, Running, environment, running
from tests.race import freezing
from tests.race.storm import HOT_KEYS, insert_all, write
from worker.relay.outcomes import Outcome

WORKER = ["-m", "worker"]  # a twin may take its place
WORKERS = 4
WAVES = 3
WRITERS = 8
WRITES = 12  # of each writer in a wave
WEATHERS = 3

IN_HAND = "guard: claimed, before the guard"
ONE_BY_ONE = 4243
# Who has passed the freeze point waits here until its own session is let go.
HOLD_EACH = f"""
    CREATE FUNCTION hold_session() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$
    BEGIN
        PERFORM pg_advisory_lock_shared({ONE_BY_ONE}, pg_backend_pid());
        PERFORM pg_advisory_unlock_shared({ONE_BY_ONE}, pg_backend_pid());
        RETURN NULL;
    END $$;
    CREATE TRIGGER held_one_by_one BEFORE INSERT ON applied_versions FOR EACH STATEMENT
        EXECUTE FUNCTION hold_session();
"""
STANDING = """
    SELECT pid, backend_xid::text AS transaction FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted AND classid = $1
"""
IS_UNDER_WAY = "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = $1 AND backend_xid::text = $2"
KEYS = [f"hot-{number:02}" for number in range(HOT_KEYS)]
# In each of four states a quarter of the collections is deleted, and back in the next.
CHANGE_ALL = text(
    "UPDATE collections SET description = 'state ' || CAST(:state AS integer),"
    " is_active = CAST(right(collection_id, 2) AS integer) % 4 <> :state, updated_at = clock_timestamp()"
)


@asynccontextmanager
async def four_workers(env: dict[str, str]) -> AsyncIterator[list[Running]]:
    """Start them and wait until each works."""
    async with AsyncExitStack() as stack:
        workers = [stack.enter_context(running(WORKER, env)) for _ in range(WORKERS)]
        for worker in workers:
            await worker.wait_for("worker_started")
        yield workers


@asynccontextmanager
async def weather(database_url: str, number: int) -> AsyncIterator[None]:
    """Freeze writers and workers alike, now here and now there, for as long as the block."""
    async with AsyncExitStack() as stack:
        for of_wave in range(WEATHERS):
            connection = await asyncpg.connect(database_url)
            stack.push_async_callback(connection.close)
            dice = number * WEATHERS + of_wave
            task = asyncio.create_task(freezing.weather(connection, list(freezing.NUMBERS), dice))
            stack.push_async_callback(asyncio.wait, [task])
            stack.callback(task.cancel)
        yield


async def give_each_worker_a_state_of_every_collection(
    engine: AsyncEngine, sql: asyncpg.Connection, redis: Redis
) -> None:
    """Let go of them one by one, who has the newest state first.

    Two workers may share a state between them: then there are fewer states, and every worker has events.
    """
    held: dict[int, str] = {}  # each worker's session, and its transaction
    async with freezing.frozen(sql, IN_HAND):
        for state in itertools.cycle(range(WORKERS)):
            async with engine.begin() as connection:
                await connection.execute(CHANGE_ALL, {"state": state})
                await append_states(connection, KEYS, EventType.UPDATED, Source.API)
            await ring(redis, await names_of(engine))
            await freezing.arrived(sql, IN_HAND, len(held) + 1)
            for row in await sql.fetch(STANDING, freezing.SPACE):
                if row["pid"] not in held:
                    held[row["pid"]] = row["transaction"]
                    await sql.execute("SELECT pg_advisory_lock($1, $2)", ONE_BY_ONE, row["pid"])
            if len(held) == WORKERS:
                break
    async with asyncio.timeout(HANG_SECONDS):
        for session, transaction in reversed(held.items()):
            await sql.execute("SELECT pg_advisory_unlock($1, $2)", ONE_BY_ONE, session)
            while await sql.fetchval(IS_UNDER_WAY, session, transaction):
                await asyncio.sleep(0.005)


async def write_often(engine: AsyncEngine, redis: Redis) -> None:
    """Write to any of the collections, again and again; each commit calls all workers at once."""
    for number in range(WRITES):
        async with engine.begin() as connection:
            await write(connection, random.choice(KEYS), f"text {number}")  # noqa: S311 - chance
        await ring(redis, await names_of(engine))


async def assert_in_sync(sql: asyncpg.Connection) -> None:
    await drained(sql)
    assert await drift(sql) == []


async def outcomes(worker: Running) -> Counter[str]:
    """End a worker in good order and count what it says that became of events."""
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.output
    batches = worker.logged("batch_settled")
    return Counter({outcome: sum(batch[outcome] for batch in batches) for outcome in Outcome})


@pytest.mark.wide
async def test_four_workers_on_hot_keys_leave_no_drift_and_settle_each_event_once(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str, redis_url: str
) -> None:
    await seed(sql)
    await insert_all(engine, KEYS)
    await freezing.install(sql)
    await sql.execute(HOLD_EACH)
    async with (
        Redis.from_url(redis_url) as redis,
        four_workers(environment(database_url, redis_url)) as workers,
    ):
        for wave in range(WAVES):
            await give_each_worker_a_state_of_every_collection(engine, sql, redis)
            await assert_in_sync(sql)
            async with weather(database_url, wave):
                await asyncio.gather(*(write_often(engine, redis) for _ in range(WRITERS)))
            await assert_in_sync(sql)
        settled = [await outcomes(worker) for worker in workers]
    assert min(of_one.total() for of_one in settled) > 0
    total = sum(settled, Counter[str]())
    assert total.total() == await sql.fetchval("SELECT last_value FROM outbox_events_id_seq")
    assert total[Outcome.STALE] >= WAVES * HOT_KEYS  # the guard was reached out of order
