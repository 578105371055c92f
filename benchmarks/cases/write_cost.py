"""What the event costs a request: the API as it is beside itself without events, and with a dual write."""

import asyncio
import itertools
import json
import os
import statistics
import sys
import time
from asyncio.subprocess import DEVNULL
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from benchmarks.bench import Bench, require
from benchmarks.figures import Beside, Figure
from benchmarks.http_client import HttpClient
from deploy.local.children import tied_to_us
from deploy.local.programs import ROOT
from deploy.local.run import listen

CLIENTS = 8
STARTED_SECONDS = 60
KEEP_ALIVE_SECONDS = 600  # connections wait while it is the others' turn
FIRST_PORT = 18_000
KINDS = ("POST", "POST", "PUT", "POST", "POST", "PUT", "POST", "POST", "PUT", "DELETE")

EVENT, LEGACY, DUAL = "with the event", "without it", "dual write"
APPLICATIONS = {
    EVENT: "api.main:app",
    LEGACY: "benchmarks.write_twins:legacy_only",
    DUAL: "benchmarks.write_twins:dual_write",
}

SEED = """
    INSERT INTO users (user_id, username, email, first_name, last_name, category, role, institution,
        subject_area, how_heard_about_us)
    VALUES ('owner', 'owner', 'owner@lab.example', '', '', '', '', '', '', '')
"""
ADD_PROJECT = (
    "INSERT INTO projects (project_id, project_name, owner_user_id) VALUES ($1, 'Measured', 'owner')"
)
# For each project what is there after the writes; a row or an event that differs from its collection is not
# counted.
LEFT = """
    SELECT
        count(*) AS collections,
        count(*) FILTER (WHERE is_active) AS active,
        (SELECT count(*) FROM activity_logs WHERE project_id = $1) AS activities,
        (
            SELECT count(*)
            FROM outbox_events
            JOIN collections AS of_event ON of_event.collection_id = aggregate_id
            WHERE of_event.project_id = $1 AND payload ->> 'project_id' = $1
        ) AS events,
        count(*) FILTER (WHERE (
            SELECT payload ->> 'research_context' = description
                AND (payload ->> 'updated_at')::timestamptz = updated_at
                AND (event_type = 'collection.deleted') = NOT is_active
            FROM outbox_events
            WHERE aggregate_id = collections.collection_id
            ORDER BY id DESC
            LIMIT 1
        )) AS last_events,
        (
            SELECT count(*)
            FROM project_collections AS target
            JOIN collections AS shown USING (project_id, collection_id)
            WHERE target.project_id = $1 AND shown.is_active
                AND target.research_context = shown.description AND target.updated_at = shown.updated_at
        ) AS rows,
        (SELECT count(*) FROM project_collections WHERE project_id = $1) AS all_rows
    FROM collections
    WHERE project_id = $1
"""


@dataclass
class Target:
    """One of the applications, in a process of its own, and what was asked of it."""

    name: str
    project_id: str
    port: int
    users: list["User"] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    rates: list[float] = field(default_factory=list)
    latencies: list[list[float]] = field(default_factory=list)  # ms, of each repeat

    @property
    def p50s(self) -> list[float]:
        return [statistics.median(repeat) for repeat in self.latencies]

    @property
    def p99(self) -> float:
        return statistics.quantiles(itertools.chain(*self.latencies), n=100)[98]

    async def check(self, sql: asyncpg.Connection) -> None:
        left = await sql.fetchrow(LEFT, self.project_id)
        created, active = self.asked["POST"], self.asked["POST"] - self.asked["DELETE"]
        events = self.asked.total() if self.name == EVENT else 0
        rows = active if self.name == DUAL else 0
        last = created if self.name == EVENT else 0
        expected = (created, active, self.asked.total(), events, last, rows, rows)
        require(tuple(left) == expected, f"{self.name}: {dict(left)} is what {expected} says")


class User:
    """Writes one collection after the other: six creations, three changes and a deletion of every ten."""

    def __init__(self, target: Target, client: HttpClient) -> None:
        self._target = target
        self._client = client
        self._all = f"/projects/{target.project_id}/collections"
        self._one = ""
        self._numbers = itertools.count()

    async def write(self) -> float:
        number = next(self._numbers)
        kind = KINDS[number % len(KINDS)]
        path, body = self._all if kind == "POST" else self._one, b""
        if kind != "DELETE":
            body = b'{"collection_name": "measured", "description": "text %d"}' % number
        began = time.perf_counter()  # uvloop's own clock counts milliseconds
        answer = await self._client.ask(kind, path, body)
        took = time.perf_counter() - began
        self._target.asked[kind] += 1
        if kind == "POST":
            self._one = f"{self._all}/{json.loads(answer)['collection_id']}"
        return took


@asynccontextmanager
async def served(name: str, project_id: str, **variables: str) -> AsyncIterator[Target]:
    """Run one of these applications, or another, in a process of its own; clients may connect at once.

    variables: of its environment, beside ours.
    """
    with listen(FIRST_PORT) as listener:
        application = APPLICATIONS.get(name, name)
        uvicorn = ["-m", "uvicorn", application, "--fd", str(listener.fileno()), "--no-access-log"]
        uvicorn += ["--timeout-keep-alive", str(KEEP_ALIVE_SECONDS)]
        process = await asyncio.create_subprocess_exec(
            *tied_to_us([sys.executable, *uvicorn], "KILL"),
            cwd=ROOT,
            env=os.environ | variables,
            stdout=DEVNULL,
            stderr=DEVNULL,
            pass_fds=[listener.fileno()],
        )
        try:
            yield Target(name, project_id, listener.getsockname()[1])
        finally:
            process.kill()
            await process.wait()


async def measure_rate(target: Target, seconds: float) -> float:
    """Return the requests per second of all users, each of whom waits for an answer before the next."""

    async def write_on(user: User) -> None:
        while time.perf_counter() < began + seconds:
            await user.write()

    before, began = target.asked.total(), time.perf_counter()
    await asyncio.gather(*map(write_on, target.users))
    return (target.asked.total() - before) / (time.perf_counter() - began)


async def measure_latency(targets: Sequence[Target], seconds: float) -> None:
    """Note how long the requests of one user each take; the targets take turns request by request."""
    for target in targets:
        target.latencies.append([])
    orders, ends = itertools.cycle(itertools.permutations(targets)), time.perf_counter() + seconds
    while time.perf_counter() < ends:
        for target in next(orders):
            target.latencies[-1].append(await target.users[0].write() * 1000)


@asynccontextmanager
async def all_served(sql: asyncpg.Connection) -> AsyncIterator[list[Target]]:
    """Run the applications side by side, each with a project of its own and its users."""
    await sql.execute(SEED)
    async with AsyncExitStack() as stack:
        targets = []
        for number, name in enumerate(APPLICATIONS):
            await sql.execute(ADD_PROJECT, f"p{number}")
            targets.append(await stack.enter_async_context(served(name, f"p{number}")))
        for target, _ in itertools.product(targets, range(CLIENTS)):
            client = await stack.enter_async_context(HttpClient.connected(target.port))
            target.users.append(User(target, client))
        yield targets


async def measure(bench: Bench) -> Sequence[Figure]:
    repeats, seconds = bench.choose(1, 30, 60), bench.choose(100, 250, 1000) / 1000
    bench.facts.update({"clients": CLIENTS, "writes": ", ".join(KINDS), "worker": "none"})
    async with bench.sql() as sql, all_served(sql) as targets:
        async with asyncio.timeout(STARTED_SECONDS):
            for target in targets:  # opens connections and prepares statements, too
                await measure_rate(target, seconds)
        for repeat in range(repeats):
            await measure_latency(targets, len(targets) * seconds)
            for target in targets[repeat % 3 :] + targets[: repeat % 3]:
                target.rates.append(await measure_rate(target, seconds))
        for target in targets:
            await target.check(sql)
    return figures(*targets)


def figures(event: Target, legacy: Target, dual: Target) -> list[Figure]:
    added = [mine - theirs for mine, theirs in zip(event.p50s, legacy.p50s, strict=True)]
    rates = [Beside(f"requests/s {LEGACY}", at_least=0.95), Beside(f"requests/s {DUAL}", at_least=1.0)]
    return [
        Figure(f"requests/s {EVENT}", "1/s", event.rates, rates),
        *(Figure(f"requests/s {target.name}", "1/s", target.rates) for target in (legacy, dual)),
        Figure("added at p50", "ms", added, at_most=0.15),
        Figure(
            f"p50 {EVENT}", "ms", event.p50s, [Beside(f"p50 {LEGACY}"), Beside(f"p50 {DUAL}", at_most=1.0)]
        ),
        *(Figure(f"p50 {target.name}", "ms", target.p50s) for target in (legacy, dual)),
        *(Figure(f"p99 {target.name}", "ms", [target.p99]) for target in (event, legacy, dual)),
    ]
