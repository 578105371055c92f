"""How fast one, two and four worker processes apply a backlog of live events, and what they read for it."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Sequence

import asyncpg

from benchmarks.backlog import append_mixed
from benchmarks.bench import Bench
from benchmarks.cases.drain import drained
from benchmarks.figures import Beside, Figure

ONE, TWO, FOUR = "one worker", "two workers", "four workers"
WORKERS = {ONE: 1, TWO: 2, FOUR: 4}
# More workers than cores cannot be faster. What they take from each other must be less than what a shared
# machine's clock can show.
NOT_LOWER = 0.95

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'collection-sync%'"
# By whatever statement. An event that another worker has in hand is fetched too, and passed over.
FETCHED = "SELECT idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'outbox_events'"
POLL_SECONDS = 0.01


async def measure(bench: Bench) -> Sequence[Figure]:
    """Take turns, up and down: each begins with empty tables, and ends with the target as it must be."""
    events = bench.choose(1_000, 40_000, 200_000)
    bench.facts.update(events=events, mix="60 % created, 30 % updated, 10 % deleted")
    speeds, rows = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)

    def append(sql: asyncpg.Connection) -> Awaitable[None]:
        return append_mixed(sql, events)

    async with bench.sql() as sql:
        for repeat in range(bench.choose(1, 5, 9)):
            for name in sorted(WORKERS, key=WORKERS.__getitem__, reverse=repeat % 2 == 1):
                before = await fetched(sql)
                speeds[name].append(events / await drained(bench, WORKERS[name], "worker", append))
                rows[name].append((await fetched(sql) - before) / events)
                bench.say(
                    f"{name}: {speeds[name][-1]:,.0f} events/s, {rows[name][-1]:.2f} rows read for each"
                )
    return figures(speeds, rows)


async def fetched(sql: asyncpg.Connection) -> int:
    """Return how many rows of the outbox were fetched by index so far; sessions count them when they end."""
    while await sql.fetchval(SESSIONS):  # noqa: ASYNC110 - other processes
        await asyncio.sleep(POLL_SECONDS)
    await sql.execute("SELECT pg_stat_clear_snapshot()")
    return int(await sql.fetchval(FETCHED))


def figures(speeds: dict[str, list[float]], rows: dict[str, list[float]]) -> list[Figure]:
    beside = {ONE: [], TWO: [Beside(ONE, at_least=1.0)], FOUR: [Beside(TWO, at_least=NOT_LOWER)]}
    return [
        *(Figure(name, "events/s", speeds[name], besides) for name, besides in beside.items()),
        *(Figure(f"{name}: rows read of the outbox", "per event", rows[name]) for name in beside),
    ]
