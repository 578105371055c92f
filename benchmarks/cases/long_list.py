"""What a list of 200,000 collections costs those who ask for something else meanwhile."""

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Sequence
from http.client import HTTPConnection

import asyncpg

from benchmarks.bench import Bench, require
from benchmarks.cases.write_cost import ADD_PROJECT, EVENT, SEED, STARTED_SECONDS, served
from benchmarks.figures import Figure
from benchmarks.http_client import HttpClient
from benchmarks.legacy_rows import CHECKED, UNCHECKED, tidy

HEALTH_AT_MOST_MS = 50.0
EVERY_SECONDS = 0.01
CHUNK = 2**18
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


async def timed_list(client: HttpClient, project: str) -> tuple[float, bytes]:
    began = time.perf_counter()
    answer = await client.ask("GET", f"/projects/{project}/collections")
    return time.perf_counter() - began, answer


async def asked_at_a_rate(
    client: HttpClient, method: str, path: str, body: bytes, ends: asyncio.Event
) -> list[float]:
    """Ask again and again until the event; return how many ms after its time each answer came.

    What waits behind an answer that is late is late as well: no request is left out because the process hung.
    """
    took: list[float] = []
    began = time.perf_counter()
    for number in itertools.count():
        due = began + number * EVERY_SECONDS
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        await client.ask(method, path, body)
        took.append((time.perf_counter() - due) * 1000)
        if ends.is_set():
            return took
    raise AssertionError


def p99(latencies: Sequence[float]) -> float:
    return statistics.quantiles(latencies, n=100)[98]


async def measure(bench: Bench) -> Sequence[Figure]:
    collections = bench.choose(2_500, 200_000)
    repeats, seconds = bench.choose(1, 5, 20), bench.choose(1, 3)
    bench.facts.update({"collections": collections, "others": f"every {EVERY_SECONDS * 1000:.0f} ms"})
    lasted: list[float] = []
    alone: list[float] = []
    health: list[float] = []
    worst: list[float] = []
    writes: list[float] = []
    short: dict[str, list[float]] = {project: [] for project in SHORT}
    async with bench.sql() as sql:
        await fill(sql, collections)
        async with (
            served(EVENT, LONG) as target,
            HttpClient.connected(target.port) as lister,
            HttpClient.connected(target.port) as prober,
            HttpClient.connected(target.port) as writer,
        ):
            async with asyncio.timeout(STARTED_SECONDS):
                created = await writer.ask("POST", "/projects/p10/collections", b'{"collection_name": "new"}')
            one = f"/projects/p10/collections/{json.loads(created)['collection_id']}"
            await asyncio.to_thread(read_list, target.port)
            for _ in range(repeats):
                for project in SHORT:
                    each = [(await timed_list(lister, project))[0] * 1000 for _ in range(50)]
                    short[project].append(statistics.median(each))
                over = asyncio.Event()
                asyncio.get_running_loop().call_later(seconds, over.set)
                alone.append(p99(await asked_at_a_rate(prober, "GET", "/healthz", b"", over)))
                over = asyncio.Event()
                async with asyncio.TaskGroup() as others:
                    probing = others.create_task(asked_at_a_rate(prober, "GET", "/healthz", b"", over))
                    writing = others.create_task(
                        asked_at_a_rate(writer, "PUT", one, b'{"color": "#000000"}', over)
                    )
                    took, parts = await asyncio.to_thread(read_list, target.port)
                    over.set()
                require(len(json.loads(b"".join(parts))) == collections, "the list is whole")
                lasted.append(took)
                health.append(p99(probing.result()))
                worst.append(max(probing.result()))
                writes.append(p99(writing.result()))
    return [
        Figure("list", "s", lasted),
        Figure("/healthz p99 beside it", "ms", health, at_most=HEALTH_AT_MOST_MS),
        Figure("/healthz at worst beside it", "ms", worst),
        Figure("/healthz p99 alone", "ms", alone),
        Figure("PUT p99 beside it", "ms", writes),
        *(Figure(f"p50 of a list of {rows:,}", "ms", short[project]) for project, rows in SHORT.items()),
    ]
