"""What comparing lists from both sides costs users, and whether lag ever passes for a mismatch."""

import asyncio
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import asyncpg

from benchmarks.bench import Bench, require
from benchmarks.cases.write_cost import EVENT, STARTED_SECONDS, served
from benchmarks.figures import Beside, Figure
from benchmarks.http_client import HttpClient
from benchmarks.legacy_rows import BARE_INSERT, CHECKED, UNCHECKED, tidy
from benchmarks.live_writes import APPEND, steadily
from benchmarks.percentiles import p50_p95_p99_ms
from benchmarks.worker_process import Worker, working
from deploy.local.errors import LocalError
from shared.events import EventType, Source
from shared.phase.comparison import Comparison, compare
from shared.planner import PLANNED_ONCE, REQUESTS

SHARES = {"without": "0", "with": "0.1"}
CLIENTS = 8
LISTS_A_SECOND = 100
SPELL_SECONDS = 0.5
PROJECTS, COLLECTIONS = 100, 50
WRITES_A_SECOND = 600
WRITERS = 16
COMPARERS = 2
ACTIVE = 0.8  # of the writes leave it so
STOPPED_SECONDS, WORKING_SECONDS = 0.7, 0.3  # of each second, of a slow worker
SETTLE_SECONDS = 120

# As HttpClient's user, who owns everything.
SEED = f"""
    INSERT INTO users (user_id, username, email, first_name, last_name, category, role, institution,
        subject_area, how_heard_about_us)
    VALUES ('owner', 'owner', 'owner@lab.example', '', '', '', '', '', '', '');
    INSERT INTO projects (project_id, project_name, owner_user_id)
    SELECT 'p' || number, '', 'owner' FROM generate_series(0, {PROJECTS - 1}) AS number;
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    SELECT 'c' || number, 'p' || number % {PROJECTS}, 'measured', 'What it holds', 'owner', true
    FROM generate_series(0, {PROJECTS * COLLECTIONS - 1}) AS number
"""  # noqa: S608 - constants
TURN = "UPDATE migration_phase SET phase = 'shadow_reads', epoch = epoch + 1, actor = 'benchmark'"
COMPARED = "SELECT coalesce(sum(matched), 0), coalesce(sum(mismatched), 0) FROM shadow_counts"
CHANGE = """
    UPDATE collections SET description = $2, is_active = $3, updated_at = clock_timestamp()
    WHERE collection_id = $1
"""
FAULTS = {
    "missing": "DELETE FROM project_collections WHERE collection_id = $1",
    "mismatched": "UPDATE project_collections SET research_context = 'other' WHERE collection_id = $1",
    "orphaned": "UPDATE collections SET is_active = false WHERE collection_id = $1",
}
SETTLED = "SELECT NOT EXISTS (SELECT FROM outbox_events)"
ACTIVE_OF = "SELECT collection_id FROM collections WHERE project_id = $1 AND is_active LIMIT 1"


@dataclass
class Users:
    """Clients of one API, and what their lists took: ms at p50 and p99 of each spell."""

    share: str
    idle: list[HttpClient]
    p50s: list[float] = field(default_factory=list)
    p99s: list[float] = field(default_factory=list)

    async def list_once(self) -> float:
        began = time.perf_counter()
        while not self.idle:  # noqa: ASYNC110 - what waits for a client is late
            await asyncio.sleep(0.001)
        client = self.idle.pop()
        await client.ask("GET", f"/projects/p{random.randrange(PROJECTS)}/collections")  # noqa: S311 - chance
        self.idle.append(client)
        return time.perf_counter() - began

    async def list_steadily(self) -> list[float]:
        return await steadily(LISTS_A_SECOND, SPELL_SECONDS, self.list_once)

    def note(self, took: Sequence[float]) -> None:
        p50, _, p99 = p50_p95_p99_ms(took)
        self.p50s.append(p50)
        self.p99s.append(p99)


@asynccontextmanager
async def using(share: str) -> AsyncIterator[Users]:
    """Run an API that compares this share of its lists, and connect its users."""
    async with AsyncExitStack() as stack:
        target = await stack.enter_async_context(served(EVENT, "p0", SHADOW_SHARE=share))
        clients = [await stack.enter_async_context(HttpClient.connected(target.port)) for _ in range(CLIENTS)]
        users = Users(share, clients)
        async with asyncio.timeout(STARTED_SECONDS):
            await users.list_once()
        yield users


async def beside_users(bench: Bench, sql: asyncpg.Connection) -> list[Figure]:
    """Let users list from two APIs in turns, of which one compares."""
    repeats, rounds = bench.choose(2, 14, 40), bench.choose(2, 8)
    async with using(SHARES["without"]) as without, using(SHARES["with"]) as comparing:
        for users in (without, comparing):
            await users.list_steadily()
        for _ in range(repeats):
            took: dict[str, list[float]] = {users.share: [] for users in (without, comparing)}
            for number in range(rounds):  # short, so that what else the machine does meets both
                for users in (without, comparing)[:: 1 if number % 2 else -1]:
                    took[users.share] += await users.list_steadily()
            for users in (without, comparing):
                users.note(took[users.share])
        await asyncio.sleep(2 * 3)  # what was counted is stored every three seconds
    matched, mismatched = await sql.fetchrow(COMPARED)
    require(matched > 0, "lists were compared")
    require(mismatched == 0, "no difference was found")
    bench.facts.update({"lists/s": LISTS_A_SECOND, "compared beside users": int(matched)})
    return [
        Figure("list p99 with comparisons", "ms", comparing.p99s, [Beside("list p99 without", at_most=1.05)]),
        Figure("list p99 without", "ms", without.p99s),
        Figure("list p50 with comparisons", "ms", comparing.p50s, [Beside("list p50 without")]),
        Figure("list p50 without", "ms", without.p50s),
    ]


@dataclass
class Storm:
    """Writers, a slow worker, and comparisons until there were enough of them."""

    pool: asyncpg.Pool
    comparisons: int
    outcomes: Counter[str] = field(default_factory=Counter)
    writes: int = 0
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def is_over(self) -> bool:
        return self.outcomes.total() >= self.comparisons

    async def write(self) -> None:
        """Change, delete or bring back a collection as the API does."""
        key = f"c{random.randrange(PROJECTS * COLLECTIONS)}"  # noqa: S311 - chance
        is_active = random.random() < ACTIVE  # noqa: S311 - chance
        event_type = EventType.UPDATED if is_active else EventType.DELETED
        values = {"collection_id": key, "event_type": event_type, "source": Source.API, "traceparent": None}
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(CHANGE, key, f"text {next(self._numbers)}", is_active)
            await connection.execute(str(APPEND), *(values[name] for name in APPEND.positiontup or ()))
        self.writes += 1

    async def write_on(self) -> None:
        """Begin as many writes each second, whatever became of those of the seconds before."""
        async with asyncio.TaskGroup() as group:
            while not self.is_over:
                group.create_task(steadily(WRITES_A_SECOND, 1, self.write))
                await asyncio.sleep(1)

    async def slow_down(self, worker: Worker) -> None:
        """Stop the worker for most of each second."""
        with suppress(ProcessLookupError):
            try:
                while not self.is_over:
                    worker.process.send_signal(signal.SIGSTOP)
                    await asyncio.sleep(STOPPED_SECONDS)
                    worker.process.send_signal(signal.SIGCONT)
                    await asyncio.sleep(WORKING_SECONDS)
            finally:
                worker.process.send_signal(signal.SIGCONT)

    async def compare_on(self) -> None:
        async with self.pool.acquire() as connection:
            while not self.is_over:
                project = f"p{random.randrange(PROJECTS)}"  # noqa: S311 - chance
                self.outcomes[(await compared(connection, project)).outcome] += 1


async def compared(connection: asyncpg.Connection, project_id: str) -> Comparison:
    comparison = await compare(connection, project_id)
    if comparison is None:
        msg = "Nothing is compared in this phase."
        raise LocalError(msg)
    return comparison


async def settled(sql: asyncpg.Connection) -> None:
    async with asyncio.timeout(SETTLE_SECONDS):
        while not await sql.fetchval(SETTLED):  # noqa: ASYNC110 - the worker is another process
            await asyncio.sleep(0.05)


async def faults_found(sql: asyncpg.Connection) -> int:
    """Plant a fault of each kind, in a project of its own, and return how many are found and named."""
    found = 0
    for number, (kind, fault) in enumerate(FAULTS.items()):
        project = f"p{number}"
        require((await compared(sql, project)).outcome == "matched", f"{project} matches once all is settled")
        key = await sql.fetchval(ACTIVE_OF, project)
        await sql.execute(fault, key)
        named = (await compared(sql, project)).mismatches
        found += [(one.collection_id, one.kind) for one in named] == [(key, kind)]
    return found


async def under_writes(bench: Bench, sql: asyncpg.Connection) -> list[Figure]:
    """Compare lists while users write and a worker is slow; then plant faults."""
    pool = asyncpg.create_pool(
        bench.url,
        min_size=WRITERS + COMPARERS,
        max_size=WRITERS + COMPARERS,
        server_settings=REQUESTS | PLANNED_ONCE,
    )
    async with pool, working() as worker:
        storm = Storm(pool, bench.choose(300, 20_000, 100_000))
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            group.create_task(storm.write_on())
            group.create_task(storm.slow_down(worker))
            for _ in range(COMPARERS):
                group.create_task(storm.compare_on())
        took = time.perf_counter() - began
        await settled(sql)
        found = await faults_found(sql)
    outcomes = {str(outcome): count for outcome, count in storm.outcomes.items()}
    bench.facts.update(
        {"comparisons under writes": outcomes, "worker stopped of each second": STOPPED_SECONDS}
    )
    require(storm.outcomes["pending"] > 0, "events waited meanwhile")
    return [
        Figure("false mismatches", "lists", [storm.outcomes["mismatched"]], at_most=0),
        Figure("comparisons", "lists", [storm.outcomes.total()]),
        Figure("comparisons/s", "1/s", [storm.outcomes.total() / took]),
        Figure("writes/s meanwhile", "1/s", [storm.writes / took]),
        Figure("planted faults found, of three", "faults", [found], at_least=len(FAULTS)),
    ]


async def prepare(sql: asyncpg.Connection) -> None:
    """Make projects whose target shows them, in the phase that compares."""
    await sql.execute(SEED)
    await sql.execute(UNCHECKED)
    await sql.execute(BARE_INSERT)
    await sql.execute(CHECKED)
    await sql.execute(TURN)
    await tidy(sql)


async def measure(bench: Bench) -> Sequence[Figure]:
    bench.facts.update({"projects": PROJECTS, "collections of each": COLLECTIONS, "share": SHARES["with"]})
    async with bench.sql() as sql:
        await prepare(sql)
        bench.say("users' lists with comparisons, and without")
        users = await beside_users(bench, sql)
        bench.say("comparisons under writes, with a slow worker")
        return users + await under_writes(bench, sql)
