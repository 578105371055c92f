"""Whether a worker of this host is alive, as far as Redis knows.

PostgreSQL is not asked: a container's health check must not fail because that is away. So keys differ
not by the database's identity but by the address that a process has for it, which a check has as well.
"""

import hashlib
import platform
from urllib.parse import parse_qsl, urlsplit

from shared.redis.client import open_redis
from shared.settings import Settings
from worker.vitals.own_name import own_name

HEALTH_SECONDS = 5  # arq writes the key this often; it expires a second after the next one is due


PREFIX = "collection_sync:worker:"


ADDRESS = {"host", "hostaddr", "port", "dbname", "database", "service"}  # of what a URL's query may say


def own_health_key(settings: Settings) -> str:
    return f"{_prefix(settings)}{own_name()}"


def _prefix(settings: Settings) -> str:
    """Distinguish deployments by the database's address, without its password."""
    url = urlsplit(settings.database_url.get_secret_value())
    where = [url.netloc.rpartition("@")[2], url.path]
    where += [f"{name}={value}" for name, value in sorted(parse_qsl(url.query)) if name in ADDRESS]
    return f"{PREFIX}{hashlib.sha256(' '.join(where).encode()).hexdigest()[:16]}:"


async def is_any_worker_alive(settings: Settings) -> bool:
    """Return whether a worker of this host and of this database has polled Redis within the last seconds.

    Raises:
        one of shared.redis.faults.REDIS_ERRORS: Redis is away, so nothing is known.

    """
    async with open_redis(settings.redis_url.get_secret_value()) as redis:
        async for _ in redis.scan_iter(match=f"{_prefix(settings)}{platform.node()}:*", count=1000):
            return True
    return False
