"""The faults. Each returns how often what it is named for really happened; 0 means that it failed to."""

import asyncio
import os
import random
import resource
import signal
import time
from collections.abc import Sequence

from redis.asyncio import Redis

from tests.chaos.fault import Fault, Inflict
from tests.chaos.spells import (
    FORBID_WRITES,
    HIDE,
    LEAST_SECONDS,
    RENAME,
    REVOKE,
    crash_by_row,
    exhaust_pools,
    slow_down,
    spell,
    terminate_sessions,
)
from tests.chaos.supervision import Supervised
from tests.chaos.system import QUIET_COLLECTIONS, System, connected
from tests.processes import HANG_SECONDS

HOUR = 3600.0
MOST_BYTES = 3_000  # a write is a few thousand bytes on the way to PostgreSQL
CUTS = 3
POISON = 4  # of each kind
TABLES = ("collections", "project_collections", "outbox_events")

HOT = "SELECT collection_id FROM collections WHERE project_id = 'p1' AND is_active ORDER BY random() LIMIT $1"
PLANT = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.updated', $2, $3::jsonb FROM unnest($1::text[]) AS collection_id
    RETURNING id
"""
MALFORMED = '{"nonsense": true}'
ILL_TIMED = '{"project_id": "p2", "research_context": null, "created_at": "never", "updated_at": null}'
WELL_FORMED = '{"project_id": "p2", "research_context": "x", "created_at": null, "updated_at": null}'


async def kill(process: Supervised) -> int:
    await process.kill()
    return 1


async def freeze(process: Supervised, seconds: float) -> int:
    with process.frozen():
        await asyncio.sleep(seconds)
    return 1


async def kill_worker(system: System, dice: random.Random, _pace: float) -> int:
    return await kill(dice.choice(system.workers))


async def kill_api(system: System, dice: random.Random, _pace: float) -> int:
    return await kill(dice.choice(system.apis))


async def freeze_worker(system: System, dice: random.Random, pace: float) -> int:
    return await freeze(dice.choice(system.workers), pace * dice.uniform(2, 5))


async def freeze_api(system: System, dice: random.Random, pace: float) -> int:
    return await freeze(dice.choice(system.apis), pace * dice.uniform(2, 5))


async def restart_postgres(system: System, dice: random.Random, pace: float) -> int:
    """Ask for a fast shutdown: sessions are ended."""
    return await _end_postgres(system, signal.SIGINT, pace * dice.uniform(0.5, 2))


async def crash_postgres(system: System, dice: random.Random, pace: float) -> int:
    """Let it end at once, as a crash does: the last batches, which wait for no disk, are lost."""
    system.crashes.append(time.monotonic())
    return await _end_postgres(system, signal.SIGQUIT, pace * dice.uniform(0.5, 2))


async def _end_postgres(system: System, how: signal.Signals, seconds: float) -> int:
    os.kill(system.postgres.pid, how)
    await asyncio.to_thread(system.postgres.stop)
    await asyncio.sleep(seconds)
    # In a thread of the loop, which lives as long as the loop does: its children end with it.
    await asyncio.to_thread(system.postgres.start)
    return 1


async def restart_redis(system: System, dice: random.Random, pace: float) -> int:
    os.kill(system.valkey.pid, signal.SIGKILL)
    await asyncio.to_thread(system.valkey.stop)
    await asyncio.sleep(pace * dice.uniform(0.5, 3))
    await asyncio.to_thread(system.valkey.start)
    return 1


async def hang_redis(system: System, dice: random.Random, pace: float) -> int:
    pid = system.valkey.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(pace * dice.uniform(2, 4))
    finally:
        os.kill(pid, signal.SIGCONT)
    return 1


async def flush_redis(system: System, _dice: random.Random, pace: float) -> int:
    async with Redis.from_url(system.valkey.url) as redis:
        for _ in range(5):
            await redis.flushall()
            await asyncio.sleep(pace * 0.2)
    return 5


def cut(channel: str) -> Inflict:
    """Reset connections in the middle of what they carry."""

    async def inflict(system: System, dice: random.Random, pace: float) -> int:
        cuts = 0
        for _ in range(CUTS):
            cuts += await system.channels[channel].cut(dice.randrange(1, MOST_BYTES))
            await asyncio.sleep(pace * dice.uniform(0, 0.5))
        return cuts

    return inflict


def stall(channel: str) -> Inflict:
    """Hold every byte back for a while."""

    async def inflict(system: System, _dice: random.Random, pace: float) -> int:
        with system.channels[channel].held():
            await asyncio.sleep(pace * 2)
        return 1

    return inflict


async def fill_disk(system: System, dice: random.Random, pace: float) -> int:
    """Let a process's log file grow no more; return how many lines it lacks.

    A limit of the process instead of a full device: it needs no privilege, and the write fails in the
    same way, in the middle of a line if need be.
    """
    process = dice.choice(system.processes)
    life, hard = process.life, resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
    size = system.log_file(process).stat().st_size
    lines = len(life.lines)
    resource.prlimit(life.pid, resource.RLIMIT_FSIZE, (size + dice.randrange(400), hard))
    try:
        await asyncio.sleep(max(LEAST_SECONDS, pace * 2))
        async with asyncio.timeout(HANG_SECONDS):
            while len(life.lines) == lines:
                await asyncio.sleep(0.05)
    finally:
        if life.process.poll() is None:
            resource.prlimit(life.pid, resource.RLIMIT_FSIZE, (hard, hard))
    return len(life.lines) - lines


def move_clock(process: str) -> Inflict:
    """Let a process's clock jump by an hour or two, and leave it there."""

    async def inflict(system: System, dice: random.Random, pace: float) -> int:
        clock = system.clocks[process]
        clock.move(dice.choice([offset for offset in (-HOUR, 0.0, HOUR) if offset != clock.offset_seconds]))
        await asyncio.sleep(pace)
        return 1

    return inflict


async def plant_poison(system: System, dice: random.Random, _pace: float) -> int:
    """Append events that cannot be applied, by hand; remember what must become of each."""
    quiet = [f"quiet-{number}" for number in dice.sample(range(1, QUIET_COLLECTIONS + 1), POISON)]
    unknown = [f"unknown-{dice.randrange(1_000_000)}" for _ in range(2 * POISON)]
    planted: dict[int, str] = {}
    async with connected(system.postgres) as sql, sql.transaction():
        hot = [row["collection_id"] for row in await sql.fetch(HOT, POISON)]
        for collection_ids, payload, outcome in (
            (hot, MALFORMED, "dead"),
            (quiet, ILL_TIMED, "dead"),
            (unknown[:POISON], ILL_TIMED, "dead"),
            (unknown[POISON:], WELL_FORMED, "obsolete"),
        ):
            source = dice.choice(("api", "repair"))
            rows = await sql.fetch(PLANT, collection_ids, source, payload)
            planted |= {row["id"]: outcome for row in rows}
    system.planted |= planted
    return len(planted)


FAULTS: Sequence[Fault] = (
    Fault("worker: SIGKILL", "worker", kill_worker),
    Fault("worker: SIGSTOP", "worker", freeze_worker),
    Fault("worker: clock jumps", "worker", move_clock("worker-2")),
    Fault("API: SIGKILL", "api", kill_api),
    Fault("API: SIGSTOP", "api", freeze_api),
    Fault("API: clock jumps", "api", move_clock("api-2")),
    Fault("PostgreSQL: restart", "postgres", restart_postgres),
    Fault("PostgreSQL: crash", "postgres", crash_postgres),
    Fault("PostgreSQL: sessions terminated", "postgres", terminate_sessions),
    Fault("PostgreSQL: rows locked, pools exhausted", "postgres", exhaust_pools),
    Fault("PostgreSQL: read-only", "postgres", spell(FORBID_WRITES, ending_sessions=True)),
    Fault("PostgreSQL: row-level security", "postgres", spell(HIDE, *TABLES)),
    Fault("PostgreSQL: grants taken", "postgres", spell(REVOKE, "project_collections, outbox_events")),
    Fault("PostgreSQL: a table renamed", "postgres", spell(RENAME, *TABLES)),
    Fault("PostgreSQL: slow trigger", "postgres", slow_down),
    Fault("PostgreSQL: row that crashes it", "postgres", crash_by_row),
    Fault("Redis: killed and restarted", "redis", restart_redis),
    Fault("Redis: hangs", "redis", hang_redis),
    Fault("Redis: FLUSHALL", "redis", flush_redis),
    Fault("worker-PostgreSQL: cut", "network", cut("worker-postgres")),
    Fault("worker-PostgreSQL: stalls", "network", stall("worker-postgres")),
    Fault("worker-Redis: cut", "network", cut("worker-redis")),
    Fault("worker-Redis: stalls", "network", stall("worker-redis")),
    Fault("API-PostgreSQL: cut", "network", cut("api-postgres")),
    Fault("API-PostgreSQL: stalls", "network", stall("api-postgres")),
    Fault("log file: no space left", "worker api", fill_disk),
    Fault("outbox: poison planted", "postgres", plant_poison),
)
