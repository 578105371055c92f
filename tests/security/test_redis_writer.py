"""Whoever can write to Redis can wake the workers and delay what they do, and no more than that."""

import asyncio
import json

import asyncpg
from arq.constants import job_key_prefix
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.doorbell import BULK_CHANNEL, DIRTY_KEY, QUEUE_NAME, WAKE_CHANNEL
from tests.legacy_rows import seed, set_collection
from tests.processes import HANG_SECONDS, environment, running_worker

NO_TEXT = b"\xff\xfe"


async def messages_that_are_no_text(redis: Redis) -> None:
    for channel in (WAKE_CHANNEL, BULK_CHANNEL):
        await redis.publish(channel, NO_TEXT)


async def a_job_whose_name_is_no_text(redis: Redis) -> None:
    await redis.zadd(QUEUE_NAME, {NO_TEXT: 1})


async def jobs_that_are_no_jobs(redis: Redis) -> None:
    for number, value in enumerate([NO_TEXT, b"", b"[]", b"null", b'{"f": 7}', b"{" * 100_000]):
        await redis.set(f"{job_key_prefix}{number}", value)
        await redis.zadd(QUEUE_NAME, {str(number): 1})


async def jobs_that_ask_for_something_else(redis: Redis) -> None:
    for name in ("os.system", "__class__", "drain_outbox", "cron:sweep"):
        job = {"t": None, "f": name, "a": ["rm -rf /"], "k": {"x": 1}, "et": 1}
        await redis.set(f"{job_key_prefix}{name}", json.dumps(job))
        await redis.zadd(QUEUE_NAME, {name: 1})


async def keys_of_another_type(redis: Redis) -> None:
    await redis.delete(QUEUE_NAME, DIRTY_KEY)
    await redis.zadd(DIRTY_KEY, {"x": 1})
    await redis.set(QUEUE_NAME, "x")


async def a_job_of_another_type(redis: Redis) -> None:
    await redis.zadd(f"{job_key_prefix}list", {"x": 1})
    await redis.zadd(QUEUE_NAME, {"list": 1})


async def a_flood(redis: Redis) -> None:
    await redis.zadd(QUEUE_NAME, {f"no job {number}": 1 for number in range(5_000)})
    for _ in range(500):
        await redis.publish(WAKE_CHANNEL, "x" * 1_000)


async def heard(redis: Redis) -> None:
    """Wait until somebody listens to both bells."""
    channels = (WAKE_CHANNEL, BULK_CHANNEL)
    async with asyncio.timeout(HANG_SECONDS):
        while [count for _, count in await redis.pubsub_numsub(*channels)] != [1, 1]:
            await asyncio.sleep(0.01)


ATTACKS = [
    messages_that_are_no_text,
    a_job_whose_name_is_no_text,
    jobs_that_are_no_jobs,
    jobs_that_ask_for_something_else,
    keys_of_another_type,
    a_job_of_another_type,
    a_flood,
]


async def test_a_worker_outlives_whatever_is_there_and_applies_what_is_written_afterwards(
    database_url: str, redis_url: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    async with (
        Redis.from_url(redis_url) as redis,
        running_worker(environment(database_url, redis_url)) as worker,
    ):
        for number, attack in enumerate(ATTACKS, start=1):
            await redis.flushall()
            await heard(redis)
            await attack(redis)
            # Nobody rings here: this waits for a sweep, which waits behind the attack in arq's queue.
            await set_collection(engine, attack.__name__, "text")
            settled = await worker.wait_for("event_settled", number)
            assert settled["outcome"] == "applied", attack.__name__
        await heard(redis)
        assert worker.process.poll() is None, worker.output
