"""What a list of 200,000 collections costs those who ask for something else meanwhile."""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection

import asyncpg

from benchmarks.bench import Bench, require
from benchmarks.cases.write_cost import ADD_PROJECT, EVENT, SEED, STARTED_SECONDS, served
from benchmarks.figures import Figure
from benchmarks.http_client import HttpClient
from benchmarks.legacy_rows import CHECKED, UNCHECKED, tidy

HEALTH_AT_MOST_MS = 50.0
PROBE_SECONDS = 0.025
WRITE_SECONDS = 0.1
CHUNK = 2**18
SHORT_LISTS = 50
SHORT = {"p10": 10, "p1000": 1_000}
LONG = "long"
ROWS = """
    INSERT INTO collections (
        collection_id, project_id, collection_name, description, created_by, is_active, linked_question_ids
    )
    SELECT gen_random_uuid()::text, $1, 'Collection ' || number, 'What collection ' || number || ' holds',
        'owner', true, '["e1111111-0000-4000-8000-000000000001"]'
    FROM generate_series(1, $2::integer) AS number
"""
ARTICLES = """
    INSERT INTO article_collections (collection_id, article_pmid, article_title, source_type, added_by)
    SELECT collection_id, '1', 'title', 'manual', 'owner' FROM collections
"""


async def fill(sql: asyncpg.Connection, collections: int) -> None:
    """Make a project for each length of a list; each collection has an article."""
    await sql.execute(SEED)
    await sql.execute(UNCHECKED)
    for project, rows in {**SHORT, LONG: collections}.items():
        await sql.execute(ADD_PROJECT, project)
        await sql.execute(ROWS, project, rows)
    await sql.execute(ARTICLES)
    await sql.execute(CHECKED)
    await tidy(sql)


def read_list(port: int) -> tuple[float, list[bytes]]:
    """Fetch the long list, in a thread of its own: to read it keeps nobody who asks for something else."""
    began = time.perf_counter()
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", f"/projects/{LONG}/collections", headers={"User-ID": "owner"})
    answer = connection.getresponse()
    parts = list(iter(lambda: answer.read(CHUNK), b""))
    connection.close()
    return time.perf_counter() - began, parts


async def timed_list(client: HttpClient, project: str) -> float:
    """Return the ms that a list takes."""
    began = time.perf_counter()
    await client.ask("GET", f"/projects/{project}/collections")
    return (time.perf_counter() - began) * 1000


@dataclass(frozen=True)
class Asker:
    """Asks for one thing at a steady rate."""

    client: HttpClient
    every_seconds: float
    method: str
    path: str
    body: bytes = b""

    async def ask_until(self, over: asyncio.Event) -> list[float]:
        """Return how many ms after its time each answer came.

        What waits behind an answer that is late is late as well: none is left out because the process hung.
        """
        took: list[float] = []
        began = time.perf_counter()
        while not over.is_set():
            due = began + len(took) * self.every_seconds
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await self.client.ask(self.method, self.path, self.body)
            took.append((time.perf_counter() - due) * 1000)
        return took


def p99(latencies: Sequence[float]) -> float:
    return statistics.quantiles(latencies, n=100)[98]


@dataclass
class Taken:
    """What was measured in each repeat: seconds of the list, ms of everything else."""

    list_seconds: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)
    short: dict[str, list[float]] = field(default_factory=lambda: {project: [] for project in SHORT})

    async def take(self, port: int, health: Asker, writer: Asker, seconds: float, collections: int) -> None:
        for project, medians in self.short.items():
            medians.append(
                statistics.median([await timed_list(writer.client, project) for _ in range(SHORT_LISTS)])
            )
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, over.set)
        self.alone.append(p99(await health.ask_until(over)))
        over = asyncio.Event()
        async with asyncio.TaskGroup() as others:
            probing = others.create_task(health.ask_until(over))
            writing = others.create_task(writer.ask_until(over))
            took, parts = await asyncio.to_thread(read_list, port)
            over.set()
        require(len(json.loads(b"".join(parts))) == collections, "the list is whole")
        self.list_seconds.append(took)
        self.health.append(p99(probing.result()))
        self.worst.append(max(probing.result()))
        self.writes.append(p99(writing.result()))

    def figures(self) -> list[Figure]:
        return [
            Figure("list", "s", self.list_seconds),
            Figure("/healthz p99 beside it", "ms", self.health, at_most=HEALTH_AT_MOST_MS),
            Figure("/healthz at worst beside it", "ms", self.worst),
            Figure("/healthz p99 alone", "ms", self.alone),
            Figure("PUT p99 beside it", "ms", self.writes),
            *(Figure(f"p50 of a list of {SHORT[project]:,}", "ms", ms) for project, ms in self.short.items()),
        ]


async def measure(bench: Bench) -> Sequence[Figure]:
    collections = bench.choose(2_500, 200_000)
    repeats, seconds = bench.choose(1, 5, 20), bench.choose(1, 3)
    bench.facts.update(
        {"collections": collections, "/healthz, a PUT each": f"{PROBE_SECONDS}, {WRITE_SECONDS} s"}
    )
    taken = Taken()
    async with bench.sql() as sql:
        await fill(sql, collections)
        async with (
            served(EVENT, LONG) as target,
            HttpClient.connected(target.port) as prober,
            HttpClient.connected(target.port) as writer,
        ):
            async with asyncio.timeout(STARTED_SECONDS):
                created = await writer.ask("POST", "/projects/p10/collections", b'{"collection_name": "new"}')
            one = f"/projects/p10/collections/{json.loads(created)['collection_id']}"
            health = Asker(prober, PROBE_SECONDS, "GET", "/healthz")
            writes = Asker(writer, WRITE_SECONDS, "PUT", one, b'{"color": "#000000"}')
            await asyncio.to_thread(read_list, target.port)
            for _ in range(repeats):
                await taken.take(target.port, health, writes, seconds, collections)
    return taken.figures()
