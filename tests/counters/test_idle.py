"""What a worker asks of Redis and of PostgreSQL while there is nothing to do.

Counted for each of its sweeps, of which there is one a second: on a machine that is busy the worker's second
is as long as it takes, and holds as much.
"""

import asyncio
from dataclasses import dataclass

import asyncpg
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from shared.settings import Settings
from tests.processes import HANG_SECONDS
from tests.round_trips import counted
from worker.main import arq_settings, build_worker

MOST_COMMANDS = 10  # for each sweep
MOST_STATEMENTS = 20  # for each sweep, BEGIN and COMMIT included
NO_AUDIT_IS_DUE = """
    INSERT INTO audit_runs (status, verdict, requested_by, repair, started_at, heartbeat_at, finished_at)
    SELECT 'finished', 'in_sync', 'schedule', false, soon, soon, soon
    FROM (SELECT now() + interval '1 hour') AS _ (soon)
"""
PATIENCE = (
    "shared.redis.doorbell.REDIS_TIMEOUT_SECONDS",
    "shared.redis.client.REDIS_TIMEOUT_SECONDS",
    "worker.doorbell.listener.REDIS_TIMEOUT_SECONDS",
    "worker.vitals.heartbeat.HEARTBEAT_PATIENCE_SECONDS",
    "worker.doorbell.arq_worker.SILENCE_SECONDS",
)


@dataclass(frozen=True)
class Asked:
    """How much a worker asks for from one sweep to the next."""

    commands: float
    statements: float


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker never take slowness for a Redis or a PostgreSQL that is away: then it asks for more."""
    for name in PATIENCE:
        monkeypatch.setattr(name, HANG_SECONDS)


async def asked_while_idle(settings: Settings, sql: asyncpg.Connection, sweeps: int) -> Asked:
    """Run a worker, let it make itself known, and count for so many sweeps."""
    await sql.execute(NO_AUDIT_IS_DUE)
    redis_url = settings.redis_url.get_secret_value()
    async with (
        asyncio.timeout(HANG_SECONDS),
        counted(settings.database_url.get_secret_value()) as wire,
        Redis.from_url(redis_url) as redis,
    ):
        watched = settings.model_copy(update={"database_url": SecretStr(wire.url)})
        arguments = {**arq_settings(watched), "handle_signals": False}
        swept = asyncio.Semaphore(0)
        drainer = arguments["ctx"]["drainer"]
        wake = drainer.wake

        def sweep(reason: str) -> None:
            if reason == "sweep":
                swept.release()
            wake(reason)

        drainer.wake = sweep
        worker = build_worker(watched, arguments)
        running = asyncio.create_task(worker.async_run())
        try:
            for _ in range(2):
                await swept.acquire()
            commands, statements = await carried_out(redis), wire.statements
            for _ in range(sweeps):
                await swept.acquire()
            commands, statements = await carried_out(redis) - commands, wire.statements - statements
        finally:
            running.cancel()
            await asyncio.wait([running])
            await worker.close()
    return Asked(commands / sweeps, statements / sweeps)


async def carried_out(redis: Redis) -> int:
    """Return how many commands the server has carried out, but for those that ask so."""
    told = await redis.info("commandstats")
    return sum(command["calls"] for name, command in told.items() if name != "cmdstat_info")


async def test_an_idle_worker_sends_redis_ten_commands_a_second_at_most(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    asked = await asked_while_idle(settings, sql, 5)  # from one heartbeat to the next
    assert 0 < asked.commands <= MOST_COMMANDS
    assert 0 < asked.statements <= MOST_STATEMENTS


async def test_one_that_hardly_rests_between_its_polls_sends_more(
    settings: Settings, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.main.POLL_SECONDS", 0.002)
    asked = await asked_while_idle(settings, sql, 1)
    assert asked.commands > MOST_COMMANDS
