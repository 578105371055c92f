"""Redis: whether ringing and listening work. Where they do not, nothing is lost, but events wait."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg
from redis.asyncio import Connection, Redis
from redis.exceptions import NoPermissionError, ReadOnlyError, ResponseError

from shared.doorbell import BULK_CHANNEL, DIRTY_KEY, QUEUE_NAME, REDIS_TIMEOUT_SECONDS, RING, WAKE_CHANNEL
from worker.health import own_health_key
from worker.preflight.check import Found, Trouble, warn
from worker.preflight.checks.server import apart

FIRST_SUPPORTED = 5  # before, a script that has asked for the time may not write
FULL = 0.9  # of maxmemory
OF_PREFLIGHT = "collection_sync:preflight"
JOB, IN_PROGRESS, RETRY = (f"arq:{what}:preflight" for what in ("job", "in-progress", "retry"))
SLOWER = "until it is mended, events wait up to 0.9 s for a sweep"

# What API, commands and worker send, arq's own included. All but the first are queued, and discarded: Redis
# refuses what a user may not run, or what it does not know, when it is queued.
WATCH = ("WATCH", IN_PROGRESS)
QUEUED: Sequence[Sequence[str]] = (
    ("EVAL", RING, "3", DIRTY_KEY, JOB, QUEUE_NAME),
    ("SET", DIRTY_KEY, "1", "NX", "PX", "1"),
    ("TIME",),
    ("PSETEX", JOB, "1", "1"),
    ("ZRANGEBYSCORE", QUEUE_NAME, "0", "0"),
    ("ZREM", QUEUE_NAME, "preflight"),
    ("ZADD", QUEUE_NAME, "0", "preflight"),
    ("PUBLISH", WAKE_CHANNEL, ""),
    ("PUBLISH", BULK_CHANNEL, ""),
    ("SUBSCRIBE", WAKE_CHANNEL, BULK_CHANNEL),
    ("PING",),
    ("DEL", DIRTY_KEY, JOB),
    ("EXISTS", IN_PROGRESS),
    ("PSETEX", IN_PROGRESS, "1", "1"),
    ("ZSCORE", QUEUE_NAME, "preflight"),
    ("ZCARD", QUEUE_NAME),
    ("GET", JOB),
    ("INCR", RETRY),
    ("EXPIRE", RETRY, "1"),
    ("SETEX", RETRY, "1", "1"),
    ("PSETEX", own_health_key(), "1", "1"),
    ("SCAN", "0"),
)
ALIVE = """
    SELECT count(*) FROM worker_processes
    WHERE ended_at IS NULL AND heartbeat_at > clock_timestamp() - interval '10 seconds'
"""


async def server(redis: Redis) -> Found:
    """Look which Redis it is, and whether it takes writes and scripts with several keys."""
    info = await redis.info()
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version") or "of an unknown version")
    troubles = []
    if int(str(info.get("redis_version", FIRST_SUPPORTED)).partition(".")[0]) < FIRST_SUPPORTED:
        troubles.append(
            warn(f"Redis {version} is too old to ring; {SLOWER}.", "Upgrade to Redis 6, Valkey, or later")
        )
    if info.get("redis_mode") == "cluster" or info.get("cluster_enabled"):
        troubles.append(
            warn(
                f"{name} is a cluster, and a ring has keys of several slots; {SLOWER}.",
                "Let REDIS_URL lead to a Redis that is no cluster: cluster-enabled no",
            )
        )
    if info.get("role", "master") != "master":
        troubles.append(
            warn(
                f"REDIS_URL leads to a replica, which takes no rings; {SLOWER}.",
                "Let REDIS_URL lead to the primary",
            )
        )
    return Found(f"{name} {version} answers.", troubles)


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
    async with _lent(redis) as connection:
        refused = [await _refusal(connection, *WATCH), await _refusal(connection, "MULTI")]
        if refused[-1] is None:
            refused += [await _refusal(connection, *command) for command in QUEUED]
            await _refusal(connection, "DISCARD")
        return list(dict.fromkeys(what for what in refused if what))


async def _refusal(connection: Connection, *command: str) -> str | None:
    """Return what was refused, and on which key or channel; None for what was taken."""
    await connection.send_command(*command)
    try:
        await connection.read_response(timeout=REDIS_TIMEOUT_SECONDS)
    except ReadOnlyError:  # a replica's: `redis` says so
        return None
    except NoPermissionError as error:
        places = [word for word in command[1:] if ":" in word and " " not in word]
        is_command = not any(word in str(error) for word in ("key", "channel"))
        return command[0] if is_command or not places else f"{command[0]} on {', '.join(places)}"
    except ResponseError:
        return command[0]
    return None


@asynccontextmanager
async def _lent(redis: Redis) -> AsyncIterator[Connection]:
    """Lend a connection, whose state is nobody's afterwards."""
    connection = cast("Connection", await redis.connection_pool.get_connection())
    try:
        yield connection
    finally:
        await connection.disconnect()
        await redis.connection_pool.release(connection)


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
    troubles: list[Trouble] = []
    if most and policy != "noeviction":
        troubles.append(
            warn(
                f"Redis throws keys away when it is full (maxmemory-policy {policy}), queued wake-ups too.",
                "CONFIG SET maxmemory-policy noeviction",
            )
        )
    if most and used > FULL * most:
        troubles.append(
            warn(
                f"Redis uses {used:,} of {most:,} bytes; full, it takes no rings.",
                f"CONFIG SET maxmemory {2 * most}",
            )
        )
    return Found("Redis keeps what is queued.", troubles)


async def clock(redis: Redis) -> Found:
    """Hold this host's clock against that of Redis' host."""
    before = time.time()
    seconds, microseconds = await redis.time()
    return apart("Redis", seconds + microseconds / 1e6, before, time.time())


async def sharing(redis: Redis, connection: asyncpg.Connection) -> Found:
    """Hold how many listen for rings against the workers of this database: Redis knows no more of them."""
    ((_, listeners),) = await redis.pubsub_numsub(WAKE_CHANNEL)
    alive = await connection.fetchval(ALIVE)
    if listeners <= alive:
        return Found("Nobody listens on this Redis but workers of this database.")
    return Found(
        "",
        [
            warn(
                f"{listeners} processes listen on this Redis, and {alive} workers of this database are alive:"
                " another deployment rings here, or a worker is just starting.",
                "Give each deployment a Redis of its own",
            )
        ],
    )
