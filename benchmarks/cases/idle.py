"""What a worker with nothing to do takes: processor time, commands of Redis, statements of PostgreSQL."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import asyncpg
from redis.asyncio import Redis

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.worker_process import working
from shared.redis.client import open_redis

CPU_AT_MOST_PERCENT = 1.0
REDIS_COMMANDS_AT_MOST = 10.0
SETTLING_SECONDS = 3

# By worker and duties alike; ours has another name. `%a` is what a session calls itself.
LOG_STATEMENTS = (
    "ALTER SYSTEM SET log_statement = 'all'",
    "ALTER SYSTEM SET log_line_prefix = 'by %a: '",
    "SELECT pg_reload_conf()",
)


async def measure(bench: Bench) -> Sequence[Figure]:
    """Watch one worker for a few seconds at a time."""
    repeats, seconds = bench.choose(1, 3, 12), bench.choose(2, 5, 10)
    bench.facts.update({"repeats": repeats, "seconds of each": seconds})
    cpu, commands, statements = [], [], []
    log = bench.directory / "postgresql" / "log"
    async with (
        bench.sql() as sql,
        open_redis(bench.settings.redis_url.get_secret_value()) as redis,
        working() as worker,
    ):
        await log_statements(sql)
        await asyncio.sleep(bench.choose(1, SETTLING_SECONDS))
        for _ in range(repeats):
            before, read_from, began = await commands_of(redis), log.stat().st_size, time.perf_counter()
            percent = await worker.cpu_percent_during(asyncio.sleep(seconds))
            after, lasted = await commands_of(redis), time.perf_counter() - began
            cpu.append(percent)
            commands.append((after - before).total() / lasted)
            statements.append(statements_of_a_worker(log, read_from) / lasted)
    bench.facts["commands"] = ", ".join(f"{name} {count}" for name, count in (after - before).most_common())
    known = [percent for percent in cpu if percent is not None]
    return [
        *([Figure("CPU", "% of a core", known, at_most=CPU_AT_MOST_PERCENT)] if known else []),
        Figure("commands of Redis", "1/s", commands, at_most=REDIS_COMMANDS_AT_MOST),
        Figure("statements of PostgreSQL", "1/s", statements),
    ]


async def log_statements(sql: asyncpg.Connection) -> None:
    for statement in LOG_STATEMENTS:
        await sql.execute(statement)


def statements_of_a_worker(log: Path, read_from: int) -> int:
    with log.open("rb") as lines:
        lines.seek(read_from)
        return sum(line.startswith(b"by collection-sync") and b"LOG:" in line for line in lines)


async def commands_of(redis: Redis) -> Counter[str]:
    """Count the commands since Redis began, each with those that a script calls; but not our own."""
    stats: Mapping[str, Mapping[str, int]] = await redis.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}
    return Counter({name: count for name, count in calls.items() if name != "info"})
