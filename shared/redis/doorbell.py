"""The doorbell: how a process that committed an event wakes a worker without waiting for Redis.

Redis holds nothing but the wake-up. A ring that is lost costs at most the worker's next sweep.
"""

import asyncio
import json
import random
import time
from typing import Any

import structlog
from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared.postgres.advice import advice_on
from shared.redis.cancellation import heed_cancellation
from shared.redis.client import REDIS_TIMEOUT_SECONDS, RedisCommand, exchange
from shared.redis.deployment import UNLEARNED, Deployment, Lane, Names
from shared.redis.faults import REDIS_ERRORS, fault_of, faults_in
from shared.redis.outage import Fault, Outage

logger = structlog.get_logger(__name__)

DRAIN_JOB = "drain_outbox"
LAST_MS = 2**47  # up to here, in the year 6429, arq can make a time of it
JOB_EXPIRES_MS = 60_000  # what no worker took in its time is forgotten
DUE = 1  # the score of the job: at once, whatever a client's clock says; arq takes 0 for none
FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 1.0
REST = 3  # times as long as a ring took: so a busy process spends at most a quarter of its time ringing
LONGEST_REST_SECONDS = 0.05  # after a ring that waited for Redis it took the time of nobody


def to_json(value: object) -> bytes:
    """Serialise an arq job. Never pickle: any client of Redis could run code with it."""
    return json.dumps(value, default=repr).encode()


def from_json(data: bytes) -> dict[str, Any]:
    """Read a job of ours, and refuse every other: arq itself would die of some.

    Raises:
        ValueError: it is not exactly what `ring` queues; arq drops it then.

    """
    value: dict[str, Any] = json.loads(data)
    enqueued_at = value.get("et")
    is_time = type(enqueued_at) is int and 0 < enqueued_at < LAST_MS
    if not is_time or value != {**OUR_JOB, "et": enqueued_at}:
        msg = "not a job of ours"
        raise ValueError(msg)
    return value


OUR_JOB: dict[str, Any] = {"t": None, "f": DRAIN_JOB, "a": [], "k": {}}


class RingRefusedError(Exception):
    """Redis answers, and does not take all that a ring consists of."""

    def __init__(self, fault: Fault, *, is_heard: bool) -> None:
        super().__init__(fault.hint)
        self.fault = fault
        self.is_heard = is_heard


def job_key(names: Names) -> str:
    """Return where arq keeps what a job is; workers of ours do not read it."""
    return f"{job_key_prefix}{names.job_id}"


def ring_commands(names: Names, lane: Lane) -> tuple[RedisCommand, ...]:
    """Return what a ring consists of.

    The arq job is for workers that do not listen at the moment. Its id is always the same, so that there is
    one at most; who takes it removes it *before* looking at the outbox, and a ring after that queues it anew.
    """
    job = serialize_job(DRAIN_JOB, (), {}, None, int(time.time() * 1000), serializer=to_json)
    return (
        ("SET", job_key(names), job, "PX", JOB_EXPIRES_MS),
        ("ZADD", names.queue, DUE, names.job_id),
        ("PEXPIRE", names.queue, JOB_EXPIRES_MS),
        ("PUBLISH", names.channel(lane), ""),
    )


async def ring(redis: Redis, names: Names, lane: Lane = "live") -> None:
    """Wake the workers that listen, and leave one job for those that do not; one round trip.

    Args:
        redis: with bounded waits.
        names: those of the database in which there is something to do.
        lane: `live` for a user's write, `bulk` for what backfills and repairs append.

    Raises:
        RingRefusedError: Redis refuses some of it.
        one of REDIS_ERRORS: within REDIS_TIMEOUT_SECONDS, when Redis is away or hangs.

    """
    commands = ring_commands(names, lane)
    async with asyncio.timeout(REDIS_TIMEOUT_SECONDS):
        answers = await exchange(redis, commands)
    if faults := faults_in(answers, commands):
        is_queued = not any(isinstance(answer, ResponseError) for answer in answers[:2])
        is_published = not isinstance(answers[-1], ResponseError)
        raise RingRefusedError(faults[0], is_heard=is_queued or is_published)


async def dismiss(redis: Redis, names: Names) -> bool:
    """Take the job back, or take it up, so that the next ring queues one again; return whether it was there.

    Raises:
        one of REDIS_ERRORS: the job may stay, and does no harm. Nor does one that Redis lets us not remove.

    """
    async with asyncio.timeout(REDIS_TIMEOUT_SECONDS):
        answers = await exchange(redis, (("ZREM", names.queue, names.job_id), ("DEL", job_key(names))))
    return answers[0] == 1


class Doorbell:
    """Rings for any number of commits with one background task, so that no request awaits Redis."""

    def __init__(self, redis: Redis, deployment: Deployment, lane: Lane = "live") -> None:
        self._redis = redis
        self._lane: Lane = lane
        self._pressed = asyncio.Event()
        self._at_rest = asyncio.Event()
        self._at_rest.set()
        self._outage = Outage("doorbell_silent", "doorbell_restored")
        self.deployment = deployment

    @property
    def is_heard(self) -> bool:
        return self._outage.fault is None

    def press(self) -> None:
        """Ask for a ring; returns at once. Call it after COMMIT, never before."""
        self._at_rest.clear()
        self._pressed.set()

    async def rung(self) -> None:
        """Return when all that was pressed has rung."""
        await self._at_rest.wait()

    async def run(self) -> None:
        """Ring whenever pressed, until cancelled. While Redis is away it keeps trying, with back-off."""
        delay = FIRST_RETRY_SECONDS
        while True:
            heed_cancellation()
            await self._pressed.wait()
            self._pressed.clear()
            began = time.perf_counter()
            if await self._ring():
                delay = FIRST_RETRY_SECONDS
                if not self._pressed.is_set():
                    self._at_rest.set()
                await asyncio.sleep(min(REST * (time.perf_counter() - began), LONGEST_REST_SECONDS))
                await self._keep_up()
            else:
                self._pressed.set()
                await asyncio.sleep(random.uniform(delay / 2, delay))  # noqa: S311 - jitter, not a secret
                delay = min(delay * 2, LAST_RETRY_SECONDS)

    async def _ring(self) -> bool:
        fault, is_heard = None, True
        try:
            await ring(self._redis, await self.deployment.names(), self._lane)
        except RingRefusedError as error:
            fault, is_heard = error.fault, error.is_heard
        except REDIS_ERRORS as error:
            fault, is_heard = fault_of(error), False
        except UNLEARNED as error:
            fault, is_heard = Fault(type(error).__name__, advice_on(error)), False
        self._outage.note(fault)
        return is_heard

    async def _keep_up(self) -> None:
        """Ring once more where the database is another one by now."""
        try:
            is_another = await self.deployment.keep_up()
        except UNLEARNED:
            return
        if is_another:
            self.press()
