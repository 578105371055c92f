"""How fast a backlog of live events is applied, beside bare SQL and beside a loop written by hand."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import asyncpg
from redis.asyncio import Redis

from benchmarks.backlog import append_hot, append_mixed, empty, require_agreement
from benchmarks.bench import Bench, timed
from benchmarks.commands import unheard
from benchmarks.figures import Beside, Figure
from shared.redis.client import open_redis
from shared.redis.deployment import Names, read_identity
from shared.redis.doorbell import ring

HOT_EVENTS, HOT_ROWS = 5_000, 200
DRAIN_TIMEOUT_SECONDS = 300
POLL_SECONDS = 0.005

BARE = """
    INSERT INTO project_collections (project_id, collection_id, research_context, created_at, updated_at)
    SELECT project_id, collection_id, description, created_at, updated_at FROM collections
"""

IS_PENDING = "SELECT EXISTS (SELECT FROM outbox_events WHERE id = $1)"
IS_ANY_PENDING = "SELECT EXISTS (SELECT FROM outbox_events)"

BARE_NAME = "bare INSERT ... SELECT, rows"
LOOP_NAME = "minimal loop by hand"
WORKER_NAME = "one worker"
WORKERS_NAME = "two workers"
COLD_NAME = f"two workers, {HOT_EVENTS:,} writes of as many rows"
HOT_NAME = f"two workers, {HOT_EVENTS:,} writes of {HOT_ROWS} rows"

Append = Callable[[asyncpg.Connection], Awaitable[None]]


async def drained(bench: Bench, number: int, module: str, append: Append) -> float:
    """Return the seconds from a backlog's commit, on empty tables, until these programs have applied it.

    Raises:
        LocalError: they did not, or not rightly.

    """
    async with AsyncExitStack() as stack:
        sql = await stack.enter_async_context(bench.sql())
        redis = await stack.enter_async_context(open_redis(bench.settings.redis_url.get_secret_value()))
        await empty(sql)
        for _ in range(number):
            await stack.enter_async_context(unheard(module))
        await append(sql)
        seconds = await timed(_ring_and_wait(sql, redis))
        await require_agreement(sql)
    return seconds


async def _ring_and_wait(sql: asyncpg.Connection, redis: Redis) -> None:
    """Ring as the API does; look for any event only once the newest is gone, since that is dear before."""
    newest = await sql.fetchval("SELECT max(id) FROM outbox_events")
    await ring(redis, Names(await read_identity(sql)))
    async with asyncio.timeout(DRAIN_TIMEOUT_SECONDS):
        while await sql.fetchval(IS_PENDING, newest) or await sql.fetchval(IS_ANY_PENDING):  # noqa: ASYNC110 - others
            await asyncio.sleep(POLL_SECONDS)


async def bare(bench: Bench, append: Append) -> tuple[float, int]:
    """Return the seconds of one statement that fills the target with the backlog's rows, and their number."""
    async with bench.sql() as sql:
        await empty(sql)
        await append(sql)
        await sql.execute("TRUNCATE outbox_events")
        await sql.execute("CHECKPOINT")
        return await timed(sql.execute(BARE)), await sql.fetchval("SELECT count(*) FROM project_collections")


async def measure(bench: Bench) -> Sequence[Figure]:
    events = bench.choose(1_000, 40_000, 200_000)
    bench.facts.update(events=events, mix="60 % created, 30 % updated, 10 % deleted")
    samples = defaultdict[str, list[float]](list)

    async def turn(name: str, number: int, module: str, append: Append, size: int) -> None:
        samples[name].append(size / await drained(bench, number, module, append))
        bench.say(f"{name}: {samples[name][-1]:,.0f} events/s")

    def mixed(sql: asyncpg.Connection) -> Awaitable[None]:
        return append_mixed(sql, events)

    for _ in range(bench.choose(1, 3, 5)):
        seconds, rows = await bare(bench, mixed)
        samples[BARE_NAME].append(rows / seconds)
        await turn(LOOP_NAME, 1, "benchmarks.minimal_loop", mixed, events)
        await turn(WORKER_NAME, 1, "worker", mixed, events)
        await turn(WORKERS_NAME, 2, "worker", mixed, events)
        await turn(HOT_NAME, 2, "worker", lambda sql: append_hot(sql, HOT_EVENTS, HOT_ROWS), HOT_EVENTS)
        await turn(COLD_NAME, 2, "worker", lambda sql: append_hot(sql, HOT_EVENTS, HOT_EVENTS), HOT_EVENTS)
    return figures(samples)


def figures(samples: dict[str, list[float]]) -> list[Figure]:
    beside = {
        BARE_NAME: [],
        LOOP_NAME: [Beside(BARE_NAME)],
        WORKER_NAME: [Beside(BARE_NAME, at_least=0.45), Beside(LOOP_NAME, at_least=1.0)],
        WORKERS_NAME: [Beside(BARE_NAME), Beside(WORKER_NAME, at_least=1.0)],
        COLD_NAME: [],
        HOT_NAME: [Beside(COLD_NAME, at_least=1.0)],
    }
    return [Figure(name, "events/s", samples[name], besides) for name, besides in beside.items()]
