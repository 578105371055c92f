"""Drain, latency, cost of a write and wrong rows, beside what else could be used.

Each peer is used by its own documentation, in a virtual environment of its own. `docs/peers.md` says how.
"""

import itertools
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from benchmarks.bench import Bench, Scale, require
from benchmarks.figures import Beside, Figure
from benchmarks.peers.environments import Unmeasured, pins, python_for
from benchmarks.peers.roles import Place, Role, Workers, own_workers, peer_workers, role
from benchmarks.peers.systems.changes import PROJECT
from shared.doorbell import open_redis

FROM_SCALE = Scale.FULL

OURS = "collection-sync"
BY_HAND = "loop by hand"
BEST = "best peer"
RATE = 100
HOT_KEYS = 200

PREPARE = (
    """
    INSERT INTO users (user_id, username, email, first_name, last_name, category, role, institution,
        subject_area, how_heard_about_us)
    VALUES ($1, $1, $1, '', '', '', '', '', '', '')
    """,
    "INSERT INTO projects (project_id, project_name, owner_user_id) VALUES ($1, '', $1)",
)

WRONG = """
    SELECT count(*)
    FROM (SELECT * FROM collections WHERE is_active) AS legacy
    FULL JOIN project_collections AS target USING (collection_id)
    WHERE (legacy.description, legacy.created_at, legacy.updated_at)
        IS DISTINCT FROM (target.research_context, target.created_at, target.updated_at)
        OR legacy.project_id IS DISTINCT FROM target.project_id
"""


@dataclass(frozen=True)
class System:
    """A system, the module of `benchmarks.peers.systems` that uses it, and how much it can be given.

    Attributes:
        environment: the name of its requirements; None: ours.
        speed: about the events a second that one worker drains; it decides how long its backlog is.

    """

    name: str
    module: str
    environment: str | None
    speed: int

    def describe(self, settings: Mapping[str, object]) -> str:
        """Name the version and the settings that differ from its defaults."""
        shown = ", ".join(f"{name} {value}" for name, value in settings.items()) or "its defaults"
        return shown if self.environment is None else f"{pins(self.environment)}: {shown}"


SYSTEMS = (
    System(OURS, "collection_sync", None, 7_000),
    System(BY_HAND, "minimal_loop", None, 7_000),
    System("txoutbox", "txoutbox", "txoutbox", 4_000),
    System("pgqueuer", "pgqueuer", "pgqueuer", 3_000),
    System("faststream-outbox", "faststream_outbox", "faststream-outbox", 2_000),
    System("procrastinate", "procrastinate", "procrastinate", 300),
    System("arq", "arq", "arq", 200),
    System("arq, tuned", "arq_tuned", "arq", 500),
)


@dataclass(frozen=True)
class Turn:
    """One system's turn: a fresh database, and its processes."""

    bench: Bench
    system: System
    python: Path
    place: Place

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[Role]:
        """Run the process that writes; its system is installed by then."""
        async with role(self.place, self.python, self.system.module, "write") as writer:
            settings = (await writer.ask(do="describe"))["settings"]
            self.bench.facts[self.system.name] = self.system.describe(settings)
            yield writer

    @asynccontextmanager
    async def workers(self, count: int) -> AsyncIterator[Workers]:
        """Run the system's workers."""
        if self.system.module == "collection_sync":
            started = own_workers(self.place, count)
        else:
            started = peer_workers(self.place, self.python, self.system.module, count)
        async with started as workers:
            yield workers

    async def wrong(self) -> int:
        """Count the target's rows that are not as the legacy rows say; ours must have none."""
        connection = await asyncpg.connect(self.place.url)
        wrong: int = await connection.fetchval(WRONG)
        await connection.close()
        require(wrong == 0 or self.system.name != OURS, f"{wrong} rows are not what the legacy rows say")
        return wrong

    async def backlog(self, *plan: object) -> dict[int, float]:
        """Write a backlog, with nobody at work, and let PostgreSQL tidy up as it would in time."""
        async with self.writer() as writer:
            written = await writer.ask(do="write", plan=plan, first=0, rate=0)
        connection = await asyncpg.connect(self.place.url)
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute("CHECKPOINT")
        await connection.close()
        return dict(written["committed"])


Measures = Mapping[str, float]
Work = Callable[[Turn], Awaitable[Measures]]


@dataclass(frozen=True)
class Measure:
    """What is measured of every system, and what ours must be beside the best peer of the same repeat."""

    name: str
    unit: str
    best: Callable[[Iterable[float]], float] | None = None
    at_least: float = -math.inf
    at_most: float = math.inf

    def figures(self, taken: Mapping[str, Sequence[float]]) -> Iterator[Figure]:
        """Yield a figure for each system that was measured in each repeat, ours first."""
        peers = {system: samples for system, samples in taken.items() if system not in (OURS, BY_HAND)}
        beside = []
        if self.best is not None:
            require(peers, f"{self.name} could be measured of a peer")
            beside = [Beside(f"{self.name}: {BEST}", at_least=self.at_least, at_most=self.at_most)]
            best = [self.best(repeat) for repeat in zip(*peers.values(), strict=True)]
            yield Figure(f"{self.name}: {BEST}", self.unit, best)
        for system, samples in taken.items():
            yield Figure(f"{self.name}: {system}", self.unit, samples, beside if system == OURS else ())


MEASURES = (
    Measure("drain", "events/s", max, at_least=3),
    Measure("wrong after the drain", "rows"),
    Measure("commit to applied, p50", "ms", min, at_most=1),
    Measure("commit to applied, p95", "ms", min),
    Measure("commit to applied, p99", "ms", min),
    Measure("added to a write, p50", "ms"),
    Measure("wrong after a hot backlog", f"of {HOT_KEYS}"),
)


async def drain(turn: Turn) -> Measures:
    """Let one worker drain a backlog."""
    seconds = turn.bench.choose(1, 1, 3)
    written = await turn.backlog("mixed", seconds * turn.system.speed)
    async with turn.workers(1) as workers:
        await workers.settle(len(written))
        applied = await workers.applied()
    require_all(written, applied)
    return {"drain": events_per_second(list(applied.values())), "wrong after the drain": await turn.wrong()}


async def hot_backlog(turn: Turn) -> Measures:
    """Let two workers start on a backlog of few keys."""
    written = await turn.backlog("hot", turn.bench.choose(1_000, 5_000), HOT_KEYS)
    async with turn.workers(2) as workers:
        await workers.settle(len(written))
        require_all(written, await workers.applied())
    return {"wrong after a hot backlog": await turn.wrong()}


async def latency(turn: Turn) -> Measures:
    """Write at a steady rate beside one worker; the first writes only show that everything works."""
    warm_up, counted = RATE, RATE * turn.bench.choose(3, 10)
    async with turn.writer() as writer, turn.workers(1) as workers:
        await writer.ask(do="write", plan=("mixed", 1), first=0, rate=0)
        await workers.settle(1)
        plan = ("mixed", 1 + warm_up + counted)
        written = dict((await writer.ask(do="write", plan=plan, first=1, rate=RATE))["committed"])
        await workers.settle(1 + len(written))
        applied = await workers.applied()
    require_all(written, applied)
    milliseconds = [1000 * (applied[number] - at) for number, at in written.items()][warm_up:]
    cuts = statistics.quantiles(milliseconds, n=100, method="inclusive")
    await turn.wrong()
    return {f"commit to applied, p{percent}": cuts[percent - 1] for percent in (50, 95, 99)}


async def added(turn: Turn) -> Measures:
    """Write in turns with and without the system, with nobody at work."""
    async with turn.writer() as writer:
        seconds = await writer.ask(do="compare", pairs=turn.bench.choose(50, 200, 500))
    pairs = zip(seconds["with"], seconds["without"], strict=True)
    return {"added to a write, p50": 1000 * statistics.median(more - less for more, less in pairs)}


def require_all(written: Iterable[int], applied: Iterable[int]) -> None:
    """Make sure that each event was dealt with."""
    if missing := set(written) - set(applied):
        raise Unmeasured(f"{len(missing)} events were never applied")


def events_per_second(applied_at: Sequence[float]) -> float:
    """Return the speed from the first commit to the last: starting a worker does not count.

    What was applied within a millisecond of the first commit was worked on before it.
    """
    first, last = min(applied_at), max(applied_at)
    return sum(at > first + 0.001 for at in applied_at) / (last - first)


@asynccontextmanager
async def turn_of(bench: Bench, system: System, python: Path) -> AsyncIterator[Turn]:
    """Make a database as the migrations leave one, with a project, and an empty Valkey."""
    server = urlsplit(bench.url)
    connection = await asyncpg.connect(server._replace(path="/template1").geturl())
    await connection.execute(f"CREATE DATABASE turn TEMPLATE {server.path[1:]}")
    try:
        place = Place(server._replace(path="/turn").geturl(), bench.directory)
        await prepare(place.url)
        async with open_redis(bench.settings.redis_url.get_secret_value()) as redis:
            await redis.flushall()
        yield Turn(bench, system, python, place)
    finally:
        await connection.execute("DROP DATABASE turn WITH (FORCE)")
        await connection.close()


async def prepare(url: str) -> None:
    """Make the project to write in."""
    connection = await asyncpg.connect(url)
    for statement in PREPARE:
        await connection.execute(statement, PROJECT)
    await connection.close()


class Samples:
    """What was measured of whom, repeat by repeat; and whom something could not be measured of, and why."""

    def __init__(self, bench: Bench) -> None:
        """Begin with nothing."""
        self._bench = bench
        self._samples: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._absent: dict[str, str] = {}

    def is_absent(self, *what: str) -> bool:
        """Say whether it was tried in vain: a system, or one of its measures."""
        return ", ".join(what) in self._absent

    def take(self, system: str, measures: Measures) -> None:
        """Note one repeat."""
        for measure, value in measures.items():
            self._samples[measure, system].append(value)

    def leave_out(self, *what: str, why: Unmeasured) -> None:
        """Note that a system, or one of its measures, is absent, and say so."""
        self._absent[", ".join(what)] = str(why)
        self._bench.say(f"ABSENT: {', '.join(what)}: {why}")

    def figures(self, repeats: int) -> Iterator[Figure]:
        """Yield a figure for each measure of each system, and of the best peer of each repeat.

        Raises:
            LocalError: there is no peer to be put beside.

        """
        for measure in MEASURES:
            of_all = {system.name: self._samples[measure.name, system.name] for system in SYSTEMS}
            taken = {system: samples for system, samples in of_all.items() if len(samples) == repeats}
            yield from measure.figures(taken)
        self._bench.facts["absent"] = (
            "; ".join(f"{what}: {why}" for what, why in self._absent.items()) or "none"
        )
        yield Figure("absent: peers, or measures of peers", "", [len(self._absent)], at_most=0)


async def environments(samples: Samples) -> dict[str, Path]:
    """Return the interpreter of each system that can be measured."""
    pythons = {}
    for system in SYSTEMS:
        try:
            named = system.environment
            pythons[system.name] = Path(sys.executable) if named is None else await python_for(named)
        except Unmeasured as why:
            samples.leave_out(system.name, why=why)
    return pythons


async def attempt(samples: Samples, bench: Bench, system: System, python: Path, work: Work) -> None:
    """Take one repeat of one measure of one system.

    Raises:
        LocalError: it is ours, and did not do its work.

    """
    try:
        async with turn_of(bench, system, python) as turn:
            measures = await work(turn)
    except Unmeasured as why:
        require(system.name != OURS, f"{OURS} did its work: {why}")
        samples.leave_out(system.name, work.__name__, why=why)
    else:
        samples.take(system.name, measures)
        shown = ", ".join(f"{name} {value:,.2f}" for name, value in measures.items())
        bench.say(f"{system.name}: {shown}")


async def measure(bench: Bench) -> Sequence[Figure]:
    """Take the repeats in turns: a measure of every system, then the next measure."""
    repeats = bench.choose(1, 2, 3)
    samples = Samples(bench)
    pythons = await environments(samples)
    systems = [system for system in SYSTEMS if system.name in pythons]
    for repeat, work in itertools.product(range(repeats), (drain, latency, added, hot_backlog)):
        for system in systems[repeat:] + systems[:repeat]:
            if not samples.is_absent(system.name, work.__name__):
                await attempt(samples, bench, system, pythons[system.name], work)
    return list(samples.figures(repeats))
