"""Whether a worker of this host is alive, as far as Redis knows."""

import platform

from shared.doorbell import open_redis
from shared.settings import Settings
from worker.own_name import own_name

HEALTH_SECONDS = 5  # arq writes the key this often; it expires a second after the next one is due


PREFIX = "collection_sync:worker:"


def own_health_key() -> str:
    """Name the key of this process. Each has its own: arq's default is one for all workers."""
    return f"{PREFIX}{own_name()}"


async def is_any_worker_alive(settings: Settings) -> bool:
    """Say whether a worker of this host has polled Redis within the last seconds.

    Raises:
        one of shared.doorbell.REDIS_ERRORS: Redis is away, so nothing is known.

    """
    async with open_redis(settings.redis_url.get_secret_value()) as redis:
        async for _ in redis.scan_iter(match=f"{PREFIX}{platform.node()}:*", count=1000):
            return True
    return False
