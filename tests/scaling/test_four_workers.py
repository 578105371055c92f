"""Four worker processes on one database, and users who write to the same few rows all the time."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.doorbell import ring
from shared.events import EventType, Source
from shared.outbox import append_states
from tests.drift import drained, drift
from tests.legacy_rows import seed
from tests.processes import Running, environment, running
from tests.race import freezing
from tests.race.storm import HOT_KEYS, insert_all, write
from worker.outcomes import Outcome

WORKER = ["-m", "worker"]  # a twin may take its place
WORKERS = 4
WAVES = 6
WRITERS = 8
WRITES = 12  # of each writer in a wave
WEATHERS = 3

IN_HAND = "guard: claimed, before the guard"
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
    """Let go of them all at the same moment: whose guard comes first is chance."""
    async with freezing.frozen(sql, IN_HAND):
        for state in range(WORKERS):
            async with engine.begin() as connection:
                await connection.execute(CHANGE_ALL, {"state": state})
                await append_states(connection, KEYS, EventType.UPDATED, Source.API)
            await ring(redis)
            await freezing.arrived(sql, IN_HAND, state + 1)


async def write_often(engine: AsyncEngine, redis: Redis) -> None:
    """Write to any of the collections, again and again; each commit calls all workers at once."""
    for number in range(WRITES):
        async with engine.begin() as connection:
            await write(connection, random.choice(KEYS), f"text {number}")  # noqa: S311 - chance
        await ring(redis)


async def assert_in_sync(sql: asyncpg.Connection) -> None:
    await drained(sql)
    assert await drift(sql) == []


async def outcomes(worker: Running) -> Counter[str]:
    """End a worker in good order and count what it says that became of events."""
    worker.process.terminate()
    assert await worker.exit_code() == 0, worker.output
    batches = worker.logged("batch_settled")
    return Counter({outcome: sum(batch[outcome] for batch in batches) for outcome in Outcome})


@pytest.mark.slow
async def test_four_workers_on_hot_keys_leave_no_drift_and_settle_each_event_once(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str, redis_url: str
) -> None:
    await seed(sql)
    await insert_all(engine, KEYS)
    await freezing.install(sql)
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
    assert total[Outcome.STALE] > HOT_KEYS  # the guard was reached out of order
