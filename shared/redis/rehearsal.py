"""What Redis would say to commands, without one of them being carried out."""

from collections.abc import Sequence

from redis.asyncio import Redis

from shared.redis.client import RedisCommand, exchange


async def rehearse(redis: Redis, commands: Sequence[RedisCommand]) -> list[object]:
    """Return what Redis answers to each of the commands, a ResponseError where it refuses it; one round trip.

    Redis looks at rights, memory and whether it takes writes when a command is queued, and all of these are
    discarded afterwards. Where MULTI itself is refused the commands are carried out: they must be harmless.

    Raises:
        one of REDIS_ERRORS: Redis does not answer, or lets us not in.

    """
    _, *answers, _ = await exchange(redis, [("MULTI",), *commands, ("DISCARD",)])
    return answers
