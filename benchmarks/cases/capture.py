"""What the capture in the database costs: the API, writers past it, and everyone while it comes and goes."""

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.bench import Bench, require
from benchmarks.cases.write_cost import (
    ADD_PROJECT,
    CLIENTS,
    EVENT,
    SEED,
    STARTED_SECONDS,
    User,
    measure_latency,
    measure_rate,
    served,
)
from benchmarks.figures import Beside, Figure
from benchmarks.http_client import HttpClient
from benchmarks.legacy_rows import empty, make_rows, tidy
from benchmarks.live_writes import steadily
from shared.postgres.database import create_engine
from worker.capture.change import change

OFF, MODES = "without it", ("count", "append")
WRITERS = 16
RATE = 500  # writes a second, while it comes and goes
SLOW_SECONDS = 0.1
TURNS = ("count", "append", None)  # installed, switched, removed
UPDATE = "UPDATE collections SET description = $2 WHERE collection_id = $1"
BULK = "UPDATE collections SET description = description || 'x'"
SOME_KEYS = "SELECT collection_id FROM collections ORDER BY collection_id LIMIT $1"
CAPTURED = "SELECT count(*) FROM outbox_events WHERE source = 'capture'"
COUNTED = "SELECT count(*) FROM captured_writes"


@dataclass
class Spells:
    """What was measured in spells that take turns: ms at the median, or a second's requests, or seconds."""

    p50s: dict[str, list[float]] = field(default_factory=dict)
    rates: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, p50: float, rate: float) -> None:
        self.p50s.setdefault(name, []).append(p50)
        self.rates.setdefault(name, []).append(rate)


@asynccontextmanager
async def installing(bench: Bench) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(
        bench.settings, application_name="benchmark", pool_size=1, statement_timeout_seconds=60
    )
    try:
        yield engine
    finally:
        await engine.dispose()


async def bring(engine: AsyncEngine, mode: str | None) -> int:
    """Bring the capture to this mode, and return how many attempts were in vain."""
    in_vain: list[int] = []
    await change(engine, mode, interrupted=asyncio.Event(), watch=in_vain.append)
    return len(in_vain)


async def of_the_api(bench: Bench, sql: asyncpg.Connection, engine: AsyncEngine) -> Spells:
    """Let users write over the API, in spells with and without the capture, appending."""
    spells, seconds = Spells(), bench.choose(100, 250, 1000) / 1000
    await sql.execute(SEED)
    await sql.execute(ADD_PROJECT, "p0")
    async with served(EVENT, "p0") as target, AsyncExitStack() as stack:
        for _ in range(CLIENTS):
            client = await stack.enter_async_context(HttpClient.connected(target.port))
            target.users.append(User(target, client))
        async with asyncio.timeout(STARTED_SECONDS):
            await measure_rate(target, seconds)
        for repeat in range(bench.choose(1, 24, 80)):
            for name, mode in ((OFF, None), ("append", "append"))[:: 1 if repeat % 2 else -1]:
                await bring(engine, mode)
                await measure_rate(target, seconds)  # what was prepared before is planned anew
                await measure_latency([target], seconds)
                spells.add(name, target.p50s[-1], await measure_rate(target, seconds))
        await bring(engine, None)
        await target.check(sql)
    require(await sql.fetchval(CAPTURED) == 0, "nothing that the API wrote was captured")
    return spells


async def of_single_updates(bench: Bench, sql: asyncpg.Connection, engine: AsyncEngine) -> Spells:
    """Update single rows past the outbox, without the capture and in both of its modes."""
    spells, updates = Spells(), bench.choose(20, 500)
    keys = [row["collection_id"] for row in await sql.fetch(SOME_KEYS, updates)]
    for repeat in range(bench.choose(1, 12, 40)):
        for mode in (None, *MODES):
            await bring(engine, mode)
            took = []
            for key in keys:
                began = time.perf_counter()
                await sql.execute(UPDATE, key, f"{mode} {repeat}")
                took.append((time.perf_counter() - began) * 1000)
            spells.add(mode or OFF, statistics.median(took), 1000 * updates / sum(took))
    require(await sql.fetchval(COUNTED) == repeat_count(spells) * 2 * updates, "each update was counted")
    await bring(engine, None)
    return spells


def repeat_count(spells: Spells) -> int:
    return len(spells.p50s[OFF])


async def of_bulk_updates(bench: Bench, sql: asyncpg.Connection, engine: AsyncEngine) -> Spells:
    """Update every row in one statement, without the capture and in both of its modes; in seconds."""
    spells, rows = Spells(), await sql.fetchval("SELECT count(*) FROM collections")
    for _ in range(bench.choose(1, 2, 3)):
        for mode in (None, *MODES):
            await bring(engine, mode)
            await sql.execute("TRUNCATE captured_writes")
            await empty(sql)
            began = time.perf_counter()
            await sql.execute(BULK)
            spells.add(mode or OFF, time.perf_counter() - began, 0)
            require(await sql.fetchval(COUNTED) == (rows if mode else 0), "each row was counted")
            require(await sql.fetchval(CAPTURED) == (rows if mode == "append" else 0), "or appended")
    await bring(engine, None)
    await sql.execute("TRUNCATE captured_writes")
    await empty(sql)
    return spells


@dataclass
class Coming:
    """How long the writes took while the capture came and went, and beside that, while nothing did."""

    undisturbed: list[float]
    disturbed: list[float]
    changes: int
    in_vain: int


async def of_coming_and_going(bench: Bench, sql: asyncpg.Connection, engine: AsyncEngine) -> Coming:
    """Install, switch and remove it, over and over, under writes past the outbox; none may fail."""
    rounds = bench.choose(2, 50)
    keys = itertools.cycle([row["collection_id"] for row in await sql.fetch(SOME_KEYS, 1000)])
    async with asyncpg.create_pool(bench.url, min_size=WRITERS, max_size=WRITERS) as pool:

        async def write() -> float:
            async with pool.acquire() as connection:
                began = time.perf_counter()
                await connection.execute(UPDATE, next(keys), f"{began}")
                return time.perf_counter() - began

        undisturbed = await steadily(RATE, bench.choose(1, 10), write)
        disturbed: list[float] = []
        in_vain = 0
        is_done = asyncio.Event()

        async def write_on() -> None:
            while not is_done.is_set():
                disturbed.extend(await steadily(RATE, 1, write))

        writing = asyncio.create_task(write_on())
        try:
            for mode in TURNS * rounds:
                in_vain += await bring(engine, mode)
        finally:
            is_done.set()
            await writing
    return Coming(undisturbed, disturbed, rounds * len(TURNS), in_vain)


async def measure(bench: Bench) -> Sequence[Figure]:
    rows = bench.choose(1_000, 100_000)
    bench.facts.update({"clients": CLIENTS, "rows": rows, "writes/s while it comes and goes": RATE})
    async with bench.sql() as sql, installing(bench) as engine:
        bench.say("requests")
        over_api = await of_the_api(bench, sql, engine)
        await sql.execute("TRUNCATE captured_writes")
        await make_rows(sql, rows)
        bench.say("single rows past the outbox")
        single = await of_single_updates(bench, sql, engine)
        await sql.execute("TRUNCATE captured_writes")
        await tidy(sql)
        bench.say("all rows past the outbox")
        bulk = await of_bulk_updates(bench, sql, engine)
        bench.say("it comes and goes")
        coming = await of_coming_and_going(bench, sql, engine)
    bench.facts.update({"changes": coming.changes, "attempts that gave way": coming.in_vain})
    return [
        Figure(
            "API p50 with it", "ms", over_api.p50s["append"], [Beside("API p50 without it", at_most=1.05)]
        ),
        Figure("API p50 without it", "ms", over_api.p50s[OFF]),
        Figure(
            f"API requests/s {OFF}",
            "1/s",
            over_api.rates[OFF],
            [Beside("API requests/s with it", at_most=1.05)],
        ),
        Figure("API requests/s with it", "1/s", over_api.rates["append"]),
        *_beside(single, "UPDATE of one row", "ms"),
        *_beside(bulk, f"UPDATE of {rows:,} rows", "s"),
        Figure("slowest write, nothing comes or goes", "ms", [max(coming.undisturbed) * 1000]),
        Figure("slowest write, it comes and goes", "ms", [max(coming.disturbed) * 1000]),
        Figure("writes over 100 ms, nothing comes or goes", "writes", [_slow(coming.undisturbed)]),
        Figure("writes over 100 ms, it comes and goes", "writes", [_slow(coming.disturbed)], at_most=0),
    ]


def _beside(spells: Spells, what: str, unit: str) -> list[Figure]:
    return [
        Figure(f"{what}, {OFF}", unit, spells.p50s[OFF]),
        *(Figure(f"{what}, {mode}", unit, spells.p50s[mode], [Beside(f"{what}, {OFF}")]) for mode in MODES),
    ]


def _slow(took: Sequence[float]) -> int:
    return sum(seconds > SLOW_SECONDS for seconds in took)
