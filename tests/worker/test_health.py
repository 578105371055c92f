import asyncio
import signal
import subprocess
import sys

from redis.asyncio import Redis

from shared.settings import Settings
from tests.forked import ROOT, run
from tests.processes import HANG_SECONDS, environment, running_worker


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
