"""What a list costs before and after the reads move, beside one straight from `collections`."""

import asyncio
import itertools
import json
import os
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from benchmarks.bench import Bench, require
from benchmarks.cases.long_list import ARTICLES, ROWS
from benchmarks.cases.write_cost import ADD_PROJECT, EVENT, SEED, STARTED_SECONDS, served
from benchmarks.figures import Beside, Figure
from benchmarks.http_client import HttpClient
from benchmarks.legacy_rows import UNCHECKED, fill_target, tidy

AT_MOST = 1.15
LENGTHS = (10, 1_000)
OF_ANOTHER = 20  # collections of each further project
STRAIGHT, BEFORE, AFTER, BUSY = "without the view", "before the turn", "after it", "after it, events wait"
# Each has a database and a process of its own, and the list without the view the database before the turn.
DATABASES = {STRAIGHT: "postgres", BEFORE: "postgres", AFTER: "moved", BUSY: "busy"}
TWIN = "benchmarks.list_twins:straight"

ADD_OTHERS = """
    INSERT INTO projects (project_id, project_name, owner_user_id)
    SELECT 'other-' || number, 'Another', 'owner' FROM generate_series(1, $1::integer) AS number
"""
OTHERS = """
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    SELECT gen_random_uuid()::text, 'other-' || project, 'Another', 'What it holds', 'owner', true
    FROM generate_series(1, $1::integer) AS project, generate_series(1, $2::integer)
"""
TURN = "UPDATE migration_phase SET phase = 'reads_moved', epoch = epoch + 1, actor = 'benchmark'"
PENDING = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.updated', 'api', '{}' FROM collections WHERE project_id LIKE 'other-%'
"""
OF_TARGET = "says the target"
MARK = "UPDATE project_collections SET research_context = $1 WHERE project_id = $2"


@dataclass
class Server:
    """One of the ways to answer lists, and the ms at the median of each repeat, by length."""

    name: str
    client: HttpClient
    p50s: dict[int, list[float]] = field(default_factory=lambda: {length: [] for length in LENGTHS})

    async def ask(self, length: int) -> bytes:
        return await self.client.ask("GET", f"/projects/{length}/collections")

    async def check(self, url: str) -> None:
        """Make sure that it answers from the side that it is named for."""
        sql = await asyncpg.connect(url)
        await sql.execute(MARK, OF_TARGET, str(LENGTHS[0]))
        await sql.close()
        shown = {item["description"] for item in json.loads(await self.ask(LENGTHS[0]))}
        require((shown == {OF_TARGET}) is (self.name in (AFTER, BUSY)), f"{self.name}: {shown}")


def at(url: str, database: str) -> str:
    return f"{url.rpartition('/')[0]}/{database}"


async def fill(bench: Bench, others: int) -> None:
    """Make three databases: before the turn, after it, and after it while events of others wait."""
    async with bench.sql() as sql:
        await sql.execute(SEED)
        await sql.execute(UNCHECKED)
        for length in LENGTHS:
            await sql.execute(ADD_PROJECT, str(length))
            await sql.execute(ROWS, str(length), length)
        await sql.execute(ADD_OTHERS, others)
        await sql.execute(OTHERS, others, OF_ANOTHER)
        await sql.execute(ARTICLES)
        await fill_target(sql)
    await derive(bench, "postgres", "moved", TURN)
    await derive(bench, "moved", "busy", PENDING)


async def derive(bench: Bench, template: str, database: str, change: str) -> None:
    """Make a database like the template, which nobody uses, with one change."""
    sql = await asyncpg.connect(at(bench.url, "template1"))
    await sql.execute(f"CREATE DATABASE {database} TEMPLATE {template}")
    await sql.close()
    sql = await asyncpg.connect(at(bench.url, database))
    await sql.execute(change)
    await tidy(sql)
    await sql.close()


@asynccontextmanager
async def all_served() -> AsyncIterator[list[Server]]:
    async with AsyncExitStack() as stack:
        servers = []
        for name, database in DATABASES.items():
            address = at(os.environ["DATABASE_URL"], database)
            application = TWIN if name == STRAIGHT else EVENT
            api = served(application, "", DATABASE_URL=address, SHADOW_SHARE="0")
            target = await stack.enter_async_context(api)
            servers.append(Server(name, await stack.enter_async_context(HttpClient.connected(target.port))))
        yield servers


async def measure_latency(servers: Sequence[Server], length: int, lists: int) -> None:
    """Let the servers take turns list by list."""
    took: dict[str, list[float]] = {server.name: [] for server in servers}
    orders = itertools.cycle(itertools.permutations(servers))
    for server in itertools.chain.from_iterable(itertools.islice(orders, lists)):
        began = time.perf_counter()
        await server.ask(length)
        took[server.name].append((time.perf_counter() - began) * 1000)
    for server in servers:
        server.p50s[length].append(statistics.median(took[server.name]))


async def measure(bench: Bench) -> Sequence[Figure]:
    others, repeats, lists = bench.choose(100, 5_000), bench.choose(1, 10, 40), bench.choose(2, 48)
    bench.facts.update({"other projects": others, "collections of each": OF_ANOTHER})
    await fill(bench, others)
    async with all_served() as servers:
        async with asyncio.timeout(STARTED_SECONDS):
            answers = {length: {await server.ask(length) for server in servers} for length in LENGTHS}
        require(all(len(same) == 1 for same in answers.values()), "each answers the same bytes")
        for _ in range(repeats):
            for length in LENGTHS:
                await measure_latency(servers, length, lists)
        for server in servers:
            await server.check(at(bench.url, DATABASES[server.name]))
    return [
        Figure(
            f"p50 of {length:,}, {server.name}",
            "ms",
            server.p50s[length],
            [] if server.name == STRAIGHT else [Beside(f"p50 of {length:,}, {STRAIGHT}", at_most=AT_MOST)],
        )
        for length in LENGTHS
        for server in servers
    ]
