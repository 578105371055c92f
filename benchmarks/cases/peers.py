"""Drain, latency, cost of a write and wrong rows, beside what else could be used.

Each peer is used by its own documentation, in a virtual environment of its own. `docs/peers.md` says how.
"""

import itertools
import statistics
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.bench import Bench, Scale, require
from benchmarks.figures import Figure
from benchmarks.peers.environments import Unmeasured, python_for
from benchmarks.peers.samples import Measure, Samples
from benchmarks.peers.turns import System, Turn, turn_of

FROM_SCALE = Scale.FULL

OURS = "collection-sync"
RATE = 100  # writes begun in a second
HOT_KEYS = 200

SYSTEMS = (
    System(OURS, "collection_sync", None, 7_000),
    System("loop by hand", "minimal_loop", None, 7_000),
    System("txoutbox", "txoutbox", "txoutbox", 4_000),
    System("pgqueuer", "pgqueuer", "pgqueuer", 3_000),
    System("faststream-outbox", "faststream_outbox", "faststream-outbox", 2_000),
    System("procrastinate", "procrastinate", "procrastinate", 300),
    System("arq", "arq", "arq", 200),
    System("arq, tuned", "arq_tuned", "arq", 500),
)


MEASURES = (
    Measure("drain", "events/s", max, at_least=3),
    Measure("wrong after the drain", "rows"),
    Measure("commit to applied, p50", "ms", min, at_most=1),
    Measure("commit to applied, p95", "ms", min),
    Measure("commit to applied, p99", "ms", min),
    Measure("added to a write, p50", "ms"),
    Measure("wrong after a hot backlog", f"of {HOT_KEYS}"),
)


Measures = Mapping[str, float]
Work = Callable[[Turn], Awaitable[Measures]]


async def drain(turn: Turn) -> Measures:
    seconds = turn.bench.choose(1, 1, 2)
    written = await turn.backlog("mixed", seconds * turn.system.speed)
    async with turn.workers(1) as workers:
        await workers.settle(len(written))
        applied = await workers.applied()
    require_all(written, applied)
    return {"drain": events_per_second(list(applied.values())), "wrong after the drain": await turn.wrong()}


async def hot_backlog(turn: Turn) -> Measures:
    written = await turn.backlog("hot", turn.bench.choose(1_000, 2_000, 5_000), HOT_KEYS)
    async with turn.workers(2) as workers:
        await workers.settle(len(written))
        require_all(written, await workers.applied())
    return {"wrong after a hot backlog": await turn.wrong()}


async def latency(turn: Turn) -> Measures:
    """Write at a steady rate beside one worker; the first writes only show that everything works."""
    warm_up, counted = RATE, RATE * turn.bench.choose(3, 6, 10)
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
        seconds = await writer.ask(do="compare", pairs=turn.bench.choose(50, 200, 400))
    pairs = zip(seconds["with"], seconds["without"], strict=True)
    return {"added to a write, p50": 1000 * statistics.median(more - less for more, less in pairs)}


def require_all(written: Iterable[int], applied: Iterable[int]) -> None:
    if missing := set(written) - set(applied):
        raise Unmeasured(f"{len(missing)} events were never applied")


def events_per_second(applied_at: Sequence[float]) -> float:
    """Return the speed from the first commit to the last: starting a worker does not count.

    What was applied within a millisecond of the first commit was worked on before it.
    """
    first, last = min(applied_at), max(applied_at)
    return sum(at > first + 0.001 for at in applied_at) / (last - first)


async def environments(samples: Samples) -> dict[str, Path]:
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
    repeats = bench.choose(1, 3)
    samples = Samples({system.name: system.environment is not None for system in SYSTEMS}, bench.say)
    pythons = await environments(samples)
    systems = [system for system in SYSTEMS if system.name in pythons]
    for repeat, work in itertools.product(range(repeats), (drain, latency, added, hot_backlog)):
        for system in systems[repeat:] + systems[:repeat]:
            if not samples.is_absent(system.name, work.__name__):
                await attempt(samples, bench, system, pythons[system.name], work)
    bench.facts["absent"] = "; ".join(map(": ".join, samples.absent.items())) or "none"
    return list(samples.figures(MEASURES, repeats))
