"""What an `Idempotency-Key` costs a POST: the first time and again, beside the same POST without one."""

import asyncio
import itertools
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg

from benchmarks.bench import Bench, require
from benchmarks.cases.write_cost import ADD_PROJECT, CLIENTS, EVENT, SEED, STARTED_SECONDS, served
from benchmarks.figures import Beside, Figure
from benchmarks.http_client import HttpClient

PROJECT = "repeats"
BODY = b'{"collection_name": "measured", "description": "a text of some length"}'
WITHOUT, NEW, AGAIN = "without a key", "with a new key", "with a key again"
LEFT = """
    SELECT (SELECT count(*) FROM collections), (SELECT count(*) FROM activity_logs),
        (SELECT count(*) FROM outbox_events), (SELECT count(*) FROM idempotency_keys)
"""


class Poster:
    """Sends the same POST on one connection in one of three ways, and counts."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._known = str(uuid.uuid4())
        self.asked = dict.fromkeys((WITHOUT, NEW, AGAIN), 0)

    async def post(self, how: str) -> float:
        key = self._known if how == AGAIN else str(uuid.uuid4())
        header = "" if how == WITHOUT else f"Idempotency-Key: {key}\r\n"
        began = time.perf_counter()
        await self._client.ask("POST", f"/projects/{PROJECT}/collections", BODY, header)
        self.asked[how] += 1
        return time.perf_counter() - began


async def rate(posters: Sequence[Poster], how: str, seconds: float) -> float:
    async def post_on(poster: Poster) -> int:
        for number in itertools.count():
            if time.perf_counter() >= began + seconds:
                return number
            await poster.post(how)
        raise AssertionError

    began = time.perf_counter()
    asked = sum(await asyncio.gather(*map(post_on, posters)))
    return asked / (time.perf_counter() - began)


@asynccontextmanager
async def posting(sql: asyncpg.Connection) -> AsyncIterator[list[Poster]]:
    await sql.execute(SEED)
    await sql.execute(ADD_PROJECT, PROJECT)
    async with AsyncExitStack() as stack:
        target = await stack.enter_async_context(served(EVENT, PROJECT))
        connecting = (stack.enter_async_context(HttpClient.connected(target.port)) for _ in range(CLIENTS))
        yield [Poster(await client) for client in connecting]


async def measure(bench: Bench) -> Sequence[Figure]:
    repeats, seconds = bench.choose(1, 20, 60), bench.choose(100, 300, 1000) / 1000
    bench.facts.update({"clients": CLIENTS, "worker": "none"})
    rates: dict[str, list[float]] = {WITHOUT: [], NEW: [], AGAIN: []}
    p50s: dict[str, list[float]] = {WITHOUT: [], NEW: [], AGAIN: []}
    ways = itertools.cycle(itertools.permutations(rates))
    async with bench.sql() as sql, posting(sql) as posters:
        async with asyncio.timeout(STARTED_SECONDS):
            for how in rates:
                await rate(posters, how, seconds)
        for _ in range(repeats):
            took: dict[str, list[float]] = {WITHOUT: [], NEW: [], AGAIN: []}
            ends = time.perf_counter() + 3 * seconds
            while time.perf_counter() < ends:
                for how in next(ways):
                    took[how].append(await posters[0].post(how) * 1000)
            for how in next(ways):
                p50s[how].append(statistics.median(took[how]))
                rates[how].append(await rate(posters, how, seconds))
        asked = {how: sum(poster.asked[how] for poster in posters) for how in rates}
        keys = asked[NEW] + CLIENTS
        made = (asked[WITHOUT] + keys,) * 3
        require(tuple(await sql.fetchrow(LEFT)) == (*made, keys), "each key made one collection")
    return [
        Figure(f"requests/s {NEW}", "1/s", rates[NEW], [Beside(f"requests/s {WITHOUT}", at_least=0.85)]),
        Figure(f"requests/s {AGAIN}", "1/s", rates[AGAIN], [Beside(f"requests/s {WITHOUT}", at_least=1.0)]),
        Figure(f"requests/s {WITHOUT}", "1/s", rates[WITHOUT]),
        Figure(f"p50 {NEW}", "ms", p50s[NEW], [Beside(f"p50 {WITHOUT}", at_most=1.2)]),
        Figure(f"p50 {AGAIN}", "ms", p50s[AGAIN], [Beside(f"p50 {WITHOUT}", at_most=1.0)]),
        Figure(f"p50 {WITHOUT}", "ms", p50s[WITHOUT]),
    ]
