"""Whoever can write to Redis can wake the workers and keep them busy looking, and no more than that.

Each entry is put beside a worker that runs all the while; afterwards a write that is rung for is applied
because of its ring, and the queue holds nothing.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from arq.constants import in_progress_key_prefix, job_key_prefix, retry_key_prefix
from arq.jobs import DeserializationError, deserialize_job_raw
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.redis import doorbell
from shared.redis.deployment import Names
from shared.redis.doorbell import RingRefusedError, ring
from tests.doorbell.place import listened_to, names_of
from tests.legacy_rows import seed, set_collection
from tests.processes import HANG_SECONDS, Running, environment, running, running_worker

NO_TEXT = b"\xff\xfe"
MEGABYTE = 2**20
MOST_GROWTH = 64 * MEGABYTE  # of a worker beside which lie hundreds of them
RANDOM_ENTRIES = 300
SEEDS = (1, 2, 3)

Entry = Callable[[Redis, Names], Awaitable[object]]


def job(**changed: object) -> bytes:
    """Return a job as a ring queues it, but for what is changed."""
    return json.dumps({"t": None, "f": "drain_outbox", "a": [], "k": {}, "et": 1} | changed).encode()


VALUES = {
    "a try that is text": job(t="x"),
    "a try that is a list": job(t=[]),
    "a time that is text": job(et="abc"),
    "an endless time": job(et=float("inf")),
    "no time": job(et=float("nan")),
    "a time of no float": job(et=10**400),
    "a time that no calendar has": job(et=2**52),
    "a time that is an object": job(et={}),
    "a function that is a list": job(f=["x"]),
    "a function of nobody's": job(f="os.system"),
    "the sweep of the release before": job(f="cron:sweep"),
    "arguments": job(a=["rm -rf /"], k={"x": 1}),
    "arguments that are none": job(a=7, k=7),
    "one that lacks everything": b"{}",
    "a list": b"[]",
    "null": b"null",
    "nothing": b"",
    "no text": NO_TEXT,
    "no end": b"{" * 100_000,
    "ten megabytes": b"x" * 10 * MEGABYTE,
}
IDS: dict[str, Callable[[Names], str | bytes]] = {
    "ours": lambda names: names.job_id,
    "another's": lambda _: "evil",
    "no text": lambda _: NO_TEXT,
    "a megabyte": lambda _: "x" * MEGABYTE,
}


def queued(value: bytes, name: Callable[[Names], str | bytes], score: float = 1) -> Entry:
    async def put(redis: Redis, names: Names) -> None:
        key = name(names)
        key = key.encode() if isinstance(key, str) else key
        async with redis.pipeline() as pipe:
            pipe.set(job_key_prefix.encode() + key, value)
            pipe.zadd(names.queue, {key: score})
            await pipe.execute(raise_on_error=False)  # the queue may be of another type already

    return put


def of_type(kind: str, key: Callable[[Names], str], size: int = 1) -> Entry:
    """Return what makes that key one of another type."""

    members = [str(number) for number in range(size)]
    command, arguments = {
        "string": ("SET", ["x" * size]),
        "list": ("RPUSH", members),
        "set": ("SADD", members),
        "hash": ("HSET", [word for member in members for word in (member, "x")]),
        "sorted set": ("ZADD", [word for member in members for word in ("1", member)]),
        "stream": ("XADD", ["*", "x", "y"]),
    }[kind]

    async def put(redis: Redis, names: Names) -> None:
        async with redis.pipeline() as pipe:
            pipe.delete(key(names))
            pipe.execute_command(command, key(names), *arguments)
            await pipe.execute()

    return put


def published(message: bytes, times: int = 1) -> Entry:
    async def put(redis: Redis, names: Names) -> None:
        for channel in names.channels:
            for _ in range(times):
                await redis.publish(channel, message)

    return put


async def the_health_key_is_of_another_type(redis: Redis, _names: Names) -> None:
    for key in await redis.keys("collection_sync:worker:*"):
        await redis.delete(key)
        await redis.zadd(key, {"x": 1})


async def a_flood(redis: Redis, names: Names) -> None:
    await of_type("sorted set", KEYS["the queue"], 100_000)(redis, names)


KEYS: dict[str, Callable[[Names], str]] = {
    "the queue": lambda names: names.queue,
    "our job": lambda names: job_key_prefix + names.job_id,
    "our job's run": lambda names: in_progress_key_prefix + names.job_id,
    "our job's tries": lambda names: retry_key_prefix + names.job_id,
    "the queue of the release before": lambda _: "collection_sync:queue",
    "the flag of the release before": lambda _: "collection_sync:dirty",
}
TYPES = ("string", "list", "set", "hash", "sorted set", "stream")
ENTRIES: dict[str, Entry] = {
    **{
        f"{name} in {value}": queued(VALUES[value], IDS[name])
        for name in ("ours", "another's")
        for value in VALUES
    },
    **{f"an id that is {name}": queued(b"x", IDS[name]) for name in IDS},
    **{
        f"a job due at {score}": queued(job(), IDS["another's"], score)
        for score in (0, -1e300, 1e300, float("inf"))
    },
    **{
        f"our job due at {score}": queued(job(), IDS["ours"], score)
        for score in (0, float("inf"), float("-inf"))
    },
    **{f"{key} is a {kind}": of_type(kind, KEYS[key]) for key in KEYS for kind in TYPES},
    "the queue is a set of 100,000": of_type("set", KEYS["the queue"], 100_000),
    "the queue is ten megabytes": of_type("string", KEYS["the queue"], 10 * MEGABYTE),
    "the health key is a sorted set": the_health_key_is_of_another_type,
    "a message that is no text": published(NO_TEXT),
    "a message of a megabyte": published(b"x" * MEGABYTE),
    "two thousand messages": published(b"x", 1_000),
    "a flood": a_flood,
    "nothing at all": lambda redis, _names: redis.flushall(),
}


def memory_of(pid: int) -> int:
    """Return the bytes that the process has in memory."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


class Beside:
    """A worker that runs, and the Redis that a stranger writes to."""

    def __init__(self, worker: Running, redis: Redis, engine: AsyncEngine, names: Names) -> None:
        self.worker = worker
        self.redis = redis
        self.names = names
        self._engine = engine
        self._writes = 0

    async def require_rings(self, after: str) -> None:
        """See that the worker applies a write because of its ring; a sweep may come first a few times."""
        async with asyncio.timeout(HANG_SECONDS):
            while True:
                self._writes += 1
                name = f"c{self._writes}"
                await set_collection(self._engine, name, "text")
                await ring_as_far_as_it_goes(self.redis, self.names)
                settled = await self.worker.wait_for("event_settled", self._writes)
                assert settled["outcome"] == "applied", after
                batch = await self.worker.wait_for("batch_settled", self._writes)
                if batch["wake"] == "doorbell":
                    return

    async def require_nothing_left(self, after: str) -> None:
        async with asyncio.timeout(HANG_SECONDS):
            while await self.redis.exists(self.names.queue):
                assert self.worker.process.poll() is None, (after, self.worker.output)
                await asyncio.sleep(0.01)


async def ring_as_far_as_it_goes(redis: Redis, names: Names) -> None:
    """Ring while the queue may be of another type: the message is heard all the same."""
    with contextlib.suppress(RingRefusedError):
        await ring(redis, names)


@pytest.fixture
async def beside(
    database_url: str, redis_url: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> AsyncIterator[Beside]:
    await seed(sql)
    async with (
        Redis.from_url(redis_url) as redis,
        running_worker(environment(database_url, redis_url)) as worker,
    ):
        await listened_to(redis)
        names = await names_of(engine)
        yield Beside(worker, redis, engine, names)
        assert worker.process.poll() is None, worker.output
        await worker.wait_for("strangers_dropped")


async def test_a_worker_outlives_each_entry_and_hears_rings_afterwards(beside: Beside) -> None:
    began_with = memory_of(beside.worker.pid)
    for name, put in ENTRIES.items():
        await put(beside.redis, beside.names)
        await beside.require_rings(name)
    await beside.require_nothing_left(name)
    assert memory_of(beside.worker.pid) < began_with + MOST_GROWTH
    lines = [*beside.worker.logged("redis_lost"), *beside.worker.logged("strangers_dropped")]
    assert len(lines) <= 10


def named(drawn: bytes) -> Callable[[Names], bytes]:
    return lambda _: drawn


@pytest.mark.parametrize("value", VALUES)
def test_arq_s_own_worker_is_given_no_job_but_ours(value: str) -> None:
    with pytest.raises(DeserializationError):
        deserialize_job_raw(VALUES[value], deserializer=doorbell.from_json)


def test_it_is_given_ours() -> None:
    function, arguments, named_ones, *_ = deserialize_job_raw(job(), deserializer=doorbell.from_json)
    assert (function, *arguments, *named_ones) == ("drain_outbox",)


async def test_arq_s_own_worker_outlives_each_of_them(
    database_url: str, redis_url: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    names = await names_of(engine)
    env = environment(database_url, redis_url)
    async with Redis.from_url(redis_url) as redis:
        for number, value in enumerate(VALUES.values()):
            await queued(value, named(f"evil {number}".encode()))(redis, names)
        await queued(b"null", IDS["ours"])(redis, names)
        with running(["-m", "arq", "worker.main.WorkerSettings"], env) as worker:
            await worker.wait_for("worker_started")
            async with asyncio.timeout(HANG_SECONDS):
                while await redis.exists(names.queue):
                    assert worker.process.poll() is None, worker.output
                    await asyncio.sleep(0.01)
            await set_collection(engine, "c1", "text")
            await worker.wait_for("event_settled")


def random_entries(dice: random.Random) -> Iterator[Entry]:
    """Yield entries without end: any value, type and size under any of our keys and arq's."""
    while True:
        kind, size = dice.choice(TYPES), dice.choice((1, 1, 1, 10, 1_000, 1_000))
        value = dice.choice((*VALUES.values(), dice.randbytes(dice.randrange(200))))
        name = dice.choice((*IDS.values(), named(dice.randbytes(8))))
        score = dice.choice((1, 0, -1, 1e300, float("inf"), float("-inf"), dice.random()))
        yield dice.choice(
            (
                queued(value, name, score),
                of_type(kind, dice.choice(list(KEYS.values())), size),
                published(value[:MEGABYTE], dice.choice((1, 10))),
                dice.choice(list(ENTRIES.values())),
            )
        )


async def fuzz(beside: Beside, seed: int, count: int) -> None:
    dice, began_with = random.Random(seed), memory_of(beside.worker.pid)  # noqa: S311 - chance, not a secret
    for number, put in zip(range(count), random_entries(dice), strict=False):
        await put(beside.redis, beside.names)
        if dice.random() < 0.05:
            await beside.require_rings(f"entry {number} of seed {seed}")
    await beside.require_rings("all of them")
    await beside.require_nothing_left("all of them")
    assert memory_of(beside.worker.pid) < began_with + MOST_GROWTH


async def test_a_worker_outlives_any_few_hundred_entries(beside: Beside) -> None:
    await fuzz(beside, SEEDS[0], RANDOM_ENTRIES)


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_worker_outlives_ten_thousand_entries(beside: Beside, seed: int) -> None:
    await fuzz(beside, seed, 10_000)
