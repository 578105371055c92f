"""The one place that makes clients of Redis, none of which waits without end; several commands at once."""

from collections.abc import Sequence
from typing import Any, cast

from redis.asyncio import Connection, ConnectionPool, Redis
from redis.exceptions import ConnectionError, ResponseError  # noqa: A004 - its name

REDIS_TIMEOUT_SECONDS = 1

RedisCommand = tuple[str | bytes | int, ...]


class _OnUvloop:
    """Mixed into redis-py's connections: what uvloop says of a closed one becomes an error of Redis.

    A connection that breaks after it was made, and before it is written to, makes uvloop raise
    RuntimeError, which redis-py passes on. It would end a task that outlives only REDIS_ERRORS.
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
    return Redis.from_pool(open_pool(url))


async def exchange(redis: Redis, commands: Sequence[RedisCommand]) -> list[object]:
    """Send the commands in one message and return Redis's answers, in which a refusal is a ResponseError.

    In less time than a pipeline of redis-py takes: so a ring needs no script to be as fast.

    Raises:
        one of REDIS_ERRORS but ResponseError: Redis does not answer, or lets us not in.

    """
    connection = cast("Connection", await redis.connection_pool.get_connection())
    try:
        await connection.send_packed_command(connection.pack_commands(commands))
        return [await _answer(connection) for _ in commands]
    except BaseException:
        await connection.disconnect(nowait=True)  # nobody may read the rest of the answers for theirs
        raise
    finally:
        await redis.connection_pool.release(connection)


async def _answer(connection: Connection) -> object:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
