"""Redis: whether ringing and listening work. Where they do not, nothing is lost, but events wait."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from typing import Any

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ReadOnlyError, ResponseError

from shared.migration_state import VERSION_TABLE
from shared.redis.client import REDIS_TIMEOUT_SECONDS, RedisCommand
from shared.redis.deployment import Names, read_identity
from shared.redis.doorbell import job_key, ring_commands
from shared.redis.rehearsal import rehearse
from worker.preflight.check import Found, Objection, warn
from worker.preflight.checks.server import apart
from worker.vitals.health import PREFIX as HEALTH_PREFIX

FIRST_SUPPORTED = 5
FULL = 0.9  # of maxmemory
OF_PREFLIGHT = "collection_sync:preflight"
NAMES = Names("preflight")  # of no database
SLOWER = "until that is fixed, events wait up to 0.9 s for a sweep"

# What API, commands and `python -m worker` send. All are queued, and discarded: Redis refuses what a user may
# not run, or what it does not know, when it is queued. Arq's own worker sends more.
LISTENED = NAMES.channels
QUEUED: Sequence[RedisCommand] = (
    *ring_commands(NAMES, "live"),
    ("PUBLISH", NAMES.channel("bulk"), ""),
    ("SUBSCRIBE", *LISTENED),
    ("PING",),
    ("ZSCORE", NAMES.queue, NAMES.job_id),
    ("ZCARD", NAMES.queue),
    ("ZREM", NAMES.queue, NAMES.job_id),
    ("DEL", job_key(NAMES)),
    ("UNLINK", NAMES.queue),
    ("PSETEX", f"{HEALTH_PREFIX}preflight", "1", "1"),
    ("SCAN", "0"),
)
DRAW_ANEW = f"In the copy: UPDATE {VERSION_TABLE} SET database_id = gen_random_uuid()"  # noqa: S608
ALIVE = """
    SELECT count(*) FROM worker_processes
    WHERE ended_at IS NULL AND heartbeat_at > clock_timestamp() - interval '10 seconds'
"""


async def server(redis: Redis) -> Found:
    """Look which Redis it is, and whether it takes writes and scripts with several keys."""
    info = await redis.info()
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version") or "of an unknown version")
    objections = []
    if int(str(info.get("redis_version", FIRST_SUPPORTED)).partition(".")[0]) < FIRST_SUPPORTED:
        objections.append(
            warn(f"Redis {version} is too old; {SLOWER}.", "Upgrade to Redis 6, Valkey, or later")
        )
    if info.get("redis_mode") == "cluster" or info.get("cluster_enabled"):
        objections.append(
            warn(
                f"{name} is a cluster, which sends us from one node to another; {SLOWER}.",
                "Let REDIS_URL lead to a Redis that is no cluster: cluster-enabled no",
            )
        )
    if info.get("role", "master") != "master":
        objections.append(
            warn(
                f"REDIS_URL leads to a replica, which takes no rings; {SLOWER}.",
                "Let REDIS_URL lead to the primary",
            )
        )
    return Found(f"{name} {version} answers.", objections)


async def rights(redis: Redis) -> Found:
    """Look whether Redis lets us send what the doorbell and its jobs consist of."""
    refused = await _refused(redis)
    if not refused:
        return Found("Redis takes every command that is sent to it.")
    commands = sorted({what.split()[0].lower() for what in refused})
    fix = " ".join(
        (
            f"ACL SETUSER {_user(redis)} ~collection_sync:* ~arq:* &collection_sync:*",
            *(f"+{name}" for name in commands),
        )
    )
    return Found("", [warn(f"Redis refuses {', '.join(refused)}; {SLOWER}.", fix)])


def _user(redis: Redis) -> str:
    return str(redis.connection_pool.connection_kwargs.get("username") or "default")


async def _refused(redis: Redis) -> list[str]:
    """Return what was refused, and on which key or channel."""
    answers = await rehearse(redis, QUEUED)
    named = [
        _named(answer, command)
        for answer, command in zip(answers, QUEUED, strict=True)
        if isinstance(answer, ResponseError)
    ]
    return list(dict.fromkeys(what for what in named if what))


def _named(error: ResponseError, command: RedisCommand) -> str | None:
    if isinstance(error, ReadOnlyError):  # a replica's: `server` says so
        return None
    name = str(command[0])
    is_of_place = isinstance(error, NoPermissionError) and any(
        word in str(error) for word in ("key", "channel")
    )
    places = [str(word) for word in command[1:] if str(word).startswith(("collection_sync:", "arq:"))]
    return f"{name} on {', '.join(places[: len(LISTENED)])}" if is_of_place and places else name


async def listening(redis: Redis) -> Found:
    """Send a message around, on a channel that nobody else knows."""
    channel = f"{OF_PREFLIGHT}:{uuid.uuid4().hex}"
    fix = f"ACL SETUSER {_user(redis)} &collection_sync:* +subscribe +publish"
    try:
        async with redis.pubsub() as listener, asyncio.timeout(REDIS_TIMEOUT_SECONDS):
            await listener.subscribe(channel)
            while (await _next(listener))["type"] != "subscribe":
                pass
            await redis.publish(channel, "heard")
            while (await _next(listener))["type"] != "message":
                pass
    except NoPermissionError:
        return Found("", [warn(f"Redis lets us not listen or publish on channels of ours; {SLOWER}.", fix)])
    except TimeoutError:
        return Found(
            "", [warn(f"A message through Redis did not come back; {SLOWER}.", "Look into Redis' log")]
        )
    return Found("A message through Redis comes back.")


async def _next(listener: Any) -> dict[str, Any]:  # noqa: ANN401 - redis-py's PubSub, which has no types
    while True:
        message: dict[str, Any] | None = await listener.get_message(timeout=REDIS_TIMEOUT_SECONDS)
        if message is not None:
            return message


async def memory(redis: Redis) -> Found:
    """Look whether Redis throws keys away, or has no room for more."""
    info = await redis.info("memory")
    most, used, policy = info.get("maxmemory", 0), info.get("used_memory", 0), info.get("maxmemory_policy")
    objections: list[Objection] = []
    if most and policy != "noeviction":
        objections.append(
            warn(
                f"Redis throws keys away when it is full (maxmemory-policy {policy}), queued wake-ups too.",
                "CONFIG SET maxmemory-policy noeviction",
            )
        )
    if most and used > FULL * most:
        objections.append(
            warn(
                f"Redis uses {used:,} of {most:,} bytes; full, it takes no rings.",
                f"CONFIG SET maxmemory {2 * most}",
            )
        )
    return Found("Redis keeps what is queued.", objections)


async def clock(redis: Redis) -> Found:
    """Hold this host's clock against that of Redis' host."""
    before = time.time()
    seconds, microseconds = await redis.time()
    return apart("Redis", seconds + microseconds / 1e6, before, time.time())


async def sharing(redis: Redis, connection: asyncpg.Connection) -> Found:
    """Look whether more listen for this database's rings than are its workers.

    Deployments of other databases may share the Redis. But a copy of a whole server, such as a snapshot
    restored for a staging environment, has the identity of the database that it was copied from.
    """
    names = Names(await read_identity(connection))
    listeners = max(count for _, count in await redis.pubsub_numsub(*names.channels))
    alive = await connection.fetchval(ALIVE)
    if listeners <= alive:
        return Found("Nobody listens for rings of this database but its workers.")
    return Found(
        "",
        [
            warn(
                f"{listeners} processes listen for rings of this database, and {alive} of its workers are"
                " alive: another deployment has the same identity, as a copy of a whole server has, or a"
                " worker is just starting.",
                DRAW_ANEW,
            )
        ],
    )
