"""The resident memory of one worker over very many events: once it is warm, it does not grow."""

from collections.abc import Sequence

from benchmarks.bench import Bench, require
from benchmarks.commands import memory_mib, unheard
from benchmarks.drains import APPEND, drained_by_others
from benchmarks.figures import Beside, Figure
from benchmarks.legacy_rows import differing, make_rows

MOST_GROWTH = 1.1  # of what is resident after the first round
SOURCES = ("api", "backfill")


async def measure(bench: Bench) -> Sequence[Figure]:
    """Let a worker apply as many events of each row as there are rounds, and look at it after each."""
    events = bench.choose(5_000, 300_000, 1_000_000)
    rounds = bench.choose(3, 10)
    bench.facts.update(events=events, rounds=rounds)
    resident = []
    async with bench.sql() as sql, unheard("worker") as pid:
        await make_rows(sql, events // rounds)
        for number in range(rounds):
            await sql.execute(APPEND, SOURCES[number % len(SOURCES)])
            await drained_by_others(sql)
            resident.append(memory_mib(pid))
        require(await differing(sql) == 0, "the target shows every row")
        peak = memory_mib(pid, "peak")
    bench.say(f"MiB after each round: {', '.join(f'{mib:.1f}' for mib in resident)}")
    early = "resident after the first round"
    return (
        Figure(early, "MiB", resident[:1]),
        Figure("resident at the end", "MiB", resident[-1:], beside=[Beside(early, at_most=MOST_GROWTH)]),
        Figure("peak", "MiB", [peak]),
    )
