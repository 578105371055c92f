"""The doorbell: how a process that committed an event wakes a worker without waiting for Redis.

Redis holds nothing but the wake-up. A ring that is lost costs at most the worker's next sweep.
"""

import asyncio
import json
import random
import time
import uuid
from collections.abc import Awaitable, Collection
from typing import Any, cast

import structlog
from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import ConnectionError, RedisError  # noqa: A004 - its name

from shared.cancellation import heed_cancellation

logger = structlog.get_logger(__name__)

QUEUE_NAME = "collection_sync:queue"
DIRTY_KEY = "collection_sync:dirty"
WAKE_CHANNEL = "collection_sync:wake"  # a user's write waits
BULK_CHANNEL = "collection_sync:wake_bulk"  # a backfill's or a repair's events wait
DRAIN_JOB = "drain_outbox"

DIRTY_MS = 2_000  # while no worker lives, at most one job is queued in this time
JOB_EXPIRES_MS = 60_000
REDIS_TIMEOUT_SECONDS = 1
FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 1.0
REST = 3  # times as long as a ring took: so a busy process spends at most a quarter of its time ringing
LONGEST_REST_SECONDS = 0.05  # after a ring that waited for Redis it took the time of nobody

REDIS_ERRORS = (RedisError, OSError, TimeoutError)

# One round trip. Every ring is published; it also queues an arq job, for workers that do not listen at
# that moment, unless one is queued already. What no worker took in its time is forgotten, but no sweep:
# those are the workers' own. The time is Redis's, whatever the clock of whoever rings says; the job is
# due a second before, so that it is due at once for a worker whose clock is a little behind.
RING = """
local queues = redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1])
if queues then
    local now = redis.call('TIME')
    local due = now[1] * 1000 + math.floor(now[2] / 1000) - 1000
    redis.call('PSETEX', KEYS[2], ARGV[2], ARGV[3])
    for _, job in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', due - ARGV[2], 'LIMIT', 0, 100)) do
        if string.sub(job, 1, 5) ~= 'cron:' then redis.call('ZREM', KEYS[3], job) end
    end
    redis.call('ZADD', KEYS[3], due, ARGV[4])
end
redis.call('PUBLISH', ARGV[5], queues and ARGV[4] or '')
return queues and 1 or 0
"""


def to_json(value: object) -> bytes:
    """Serialise an arq job. Never pickle: whoever writes to Redis could run code with it."""
    return json.dumps(value, default=repr).encode()


def from_json(data: bytes) -> dict[str, Any]:
    """Read what `to_json` wrote."""
    value: dict[str, Any] = json.loads(data)
    return value


class _OnUvloop:
    """Mixed into redis-py's connections: what uvloop says of a closed one becomes an error of Redis.

    A connection that breaks after it was made, and before it is written to, makes uvloop raise
    RuntimeError, which redis-py passes on. It would end whoever outlives only REDIS_ERRORS.
    """

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - redis-py's own
        try:
            await super().send_packed_command(*arguments, **options)  # type: ignore[misc]
        except RuntimeError as error:
            msg = "the connection was closed before it was written to"
            raise ConnectionError(msg) from error


def open_pool(url: str) -> ConnectionPool:
    """Make a pool with bounded waits, which connects on first use: so Redis may be away."""
    of_tcp = {} if url.startswith("unix:") else {"socket_keepalive": True}
    pool = ConnectionPool.from_url(
        url,
        socket_timeout=REDIS_TIMEOUT_SECONDS,
        socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
        **of_tcp,
    )
    pool.connection_class = type("Connection", (_OnUvloop, pool.connection_class), {})
    return pool


def open_redis(url: str) -> Redis:
    """Make a client of such a pool."""
    return Redis.from_pool(open_pool(url))


async def ring(redis: Redis, channel: str = WAKE_CHANNEL) -> bool:
    """Wake the workers that listen, and queue one drain job; return False when one was queued already.

    Args:
        redis: with bounded waits.
        channel: WAKE_CHANNEL for the live lane, BULK_CHANNEL for the others.

    Raises:
        one of REDIS_ERRORS: within REDIS_TIMEOUT_SECONDS, when Redis is away or hangs.

    """
    job_id = uuid.uuid4().hex  # a fixed id would be refused while an earlier job still runs
    now_ms = int(time.time() * 1000)
    job = serialize_job(DRAIN_JOB, (), {}, None, now_ms, serializer=to_json)
    answer = redis.eval(
        RING, 3, DIRTY_KEY, job_key_prefix + job_id, QUEUE_NAME,
        str(DIRTY_MS), str(JOB_EXPIRES_MS), job.decode(), job_id, channel,
    )  # fmt: skip
    async with asyncio.timeout(REDIS_TIMEOUT_SECONDS):
        return bool(await cast("Awaitable[int]", answer))


async def dismiss(redis: Redis, job_ids: Collection[str]) -> None:
    """Take back the jobs of rings that were heard and answered, so that the next ring queues one again.

    Raises:
        one of REDIS_ERRORS: the jobs stay, and do no harm.

    """
    async with redis.pipeline(transaction=True) as pipe:
        pipe.zrem(QUEUE_NAME, *job_ids)
        pipe.delete(DIRTY_KEY, *(job_key_prefix + job_id for job_id in job_ids))
        await pipe.execute()


class Doorbell:
    """Rings for any number of commits with one background task, so that no request awaits Redis."""

    def __init__(self, redis: Redis, channel: str = WAKE_CHANNEL) -> None:
        """Take the client to ring with, which the caller closes, and the channel of the lane to drain."""
        self._redis = redis
        self._channel = channel
        self._pressed = asyncio.Event()
        self.is_heard = True

    def press(self) -> None:
        """Ask for a ring; returns at once. Call it after COMMIT, never before."""
        self._pressed.set()

    async def run(self) -> None:
        """Ring whenever pressed, until cancelled. While Redis is away it keeps trying, with back-off."""
        delay = FIRST_RETRY_SECONDS
        while True:
            heed_cancellation()
            await self._pressed.wait()
            self._pressed.clear()
            began = time.perf_counter()
            try:
                await ring(self._redis, self._channel)
            except REDIS_ERRORS as error:
                self._pressed.set()
                if self.is_heard:
                    logger.warning("doorbell_silent", error=type(error).__name__)
                self.is_heard = False
                await asyncio.sleep(random.uniform(delay / 2, delay))  # noqa: S311 - jitter, not a secret
                delay = min(delay * 2, LAST_RETRY_SECONDS)
            else:
                if not self.is_heard:
                    logger.info("doorbell_restored")
                self.is_heard = True
                delay = FIRST_RETRY_SECONDS
                await asyncio.sleep(min(REST * (time.perf_counter() - began), LONGEST_REST_SECONDS))
