import asyncio
import signal
import subprocess
import sys

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from shared.settings import Settings
from tests.forked import ROOT, run
from tests.processes import HANG_SECONDS, environment, running_worker
from worker.vitals.health import own_health_key


def check(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return run(["-m", "worker", "--check"], env)


async def test_check_tells_a_living_worker_from_none(settings: Settings) -> None:
    redis_url = settings.redis_url.get_secret_value()
    env = environment(settings.database_url.get_secret_value(), redis_url)
    assert (await asyncio.to_thread(check, env)).returncode == 1
    async with running_worker(env) as worker, Redis.from_url(redis_url) as redis:
        key = worker.logged("worker_started")[0]["health_key"]
        async with asyncio.timeout(HANG_SECONDS):
            while True:
                worker.signal(signal.SIGSTOP)
                if await redis.persist(key):  # or it might expire before we look
                    break
                worker.signal(signal.SIGCONT)
                await asyncio.sleep(0.01)
        alive = await asyncio.to_thread(check, env)
    assert (alive.returncode, alive.stdout) == (0, "alive\n")


async def test_check_knows_the_workers_of_its_own_database_from_another_s(settings: Settings) -> None:
    """As where production's workers run on this host, and the same Redis is staging's."""
    redis_url = settings.redis_url.get_secret_value()
    production = environment(settings.database_url.get_secret_value(), redis_url)
    staging = {**production, "DATABASE_URL": production["DATABASE_URL"] + "_staging"}
    async with running_worker(production), Redis.from_url(redis_url) as redis:
        async with asyncio.timeout(HANG_SECONDS):
            while not (keys := await redis.keys("collection_sync:worker:*")):
                await asyncio.sleep(0.01)
        await redis.copy(keys[0], f"{keys[0].decode()}:kept")
        await redis.persist(f"{keys[0].decode()}:kept")  # whenever we look, it is there
        checked = [await asyncio.to_thread(check, env) for env in (production, staging)]
    assert [one.returncode for one in checked] == [0, 1]


ADDRESSES = (
    ("postgresql://u:p@h:5432/d", "postgresql://u:another@h:5432/d", True),
    ("postgresql://u:p@h:5432/d", "postgresql://u:p@h:5432/e", False),
    ("postgresql://u:p@h:5432/d", "postgresql://u:p@g:5432/d", False),
    ("postgresql:///d?host=/run/a&password=x", "postgresql:///d?host=/run/a&password=y", True),
    ("postgresql:///d?host=/run/a", "postgresql:///d?host=/run/b", False),
)


@pytest.mark.parametrize(("one", "another", "is_same"), ADDRESSES)
def test_workers_are_told_apart_by_the_address_of_their_database_and_by_no_secret(
    one: str, another: str, *, is_same: bool
) -> None:
    keys = {
        own_health_key(Settings(database_url=SecretStr(url), redis_url=SecretStr("redis://none")))
        for url in (one, another)
    }
    assert (len(keys) == 1) == is_same


def test_check_says_so_when_redis_cannot_be_asked() -> None:
    env = environment("postgresql://nowhere/none", "redis://127.0.0.1:1")
    unknown = check(env)
    assert unknown.returncode == 1
    assert "Redis does not answer" in unknown.stderr


def test_check_brings_in_none_of_what_works() -> None:
    brought_in = "import sys, worker.check; print(sorted({'asyncpg', 'worker.main'} & sys.modules.keys()))"
    ran = subprocess.run(
        [sys.executable, "-c", brought_in], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"
