"""What a worker asks of Redis and of PostgreSQL while there is nothing to do."""

import asyncio
import time
from dataclasses import dataclass

from redis.asyncio import Redis

from shared.settings import Settings
from tests.processes import environment, running
from tests.round_trips import counted

BEATS_SECONDS = 5.0  # between two heartbeats; everything else is done each second, or oftener
MOST_COMMANDS = 30  # a second
MOST_STATEMENTS = 30  # a second, BEGIN and COMMIT included
IMPATIENT = """
import runpy, worker.main
worker.main.POLL_SECONDS = 0.02
runpy.run_module("worker", run_name="__main__")
"""


@dataclass(frozen=True)
class Asked:
    """How much a worker asks for in a second."""

    commands: float
    statements: float


async def asked_while_idle(arguments: list[str], seconds: float, settings: Settings) -> Asked:
    """Start a worker, let it make itself known, and count for so many seconds."""
    database_url, redis_url = settings.database_url.get_secret_value(), settings.redis_url.get_secret_value()
    async with counted(database_url) as wire, Redis.from_url(redis_url) as redis:
        with running(arguments, environment(wire.url, redis_url)) as worker:
            await worker.wait_for("worker_heartbeat")
            await asyncio.sleep(1)
            began, commands, statements = time.monotonic(), await carried_out(redis), wire.statements
            await asyncio.sleep(seconds)
            commands, statements = await carried_out(redis) - commands, wire.statements - statements
            passed = time.monotonic() - began
    return Asked(commands / passed, statements / passed)


async def carried_out(redis: Redis) -> int:
    """Return how many commands the server has carried out, but for those that ask so."""
    told = await redis.info("commandstats")
    return sum(command["calls"] for name, command in told.items() if name != "cmdstat_info")


async def test_an_idle_worker_sends_redis_thirty_commands_a_second_at_most(settings: Settings) -> None:
    asked = await asked_while_idle(["-m", "worker"], BEATS_SECONDS, settings)
    assert 0 < asked.commands <= MOST_COMMANDS
    assert 0 < asked.statements <= MOST_STATEMENTS


async def test_one_that_polls_fifty_times_a_second_sends_more(settings: Settings) -> None:
    asked = await asked_while_idle(["-c", IMPATIENT], 2, settings)
    assert asked.commands > MOST_COMMANDS
