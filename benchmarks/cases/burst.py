"""From the last of 10,000 commits, written as fast as possible, until one worker has drained them all."""

from collections.abc import Sequence

from benchmarks.bench import Bench, require
from benchmarks.figures import Figure
from benchmarks.live_writes import CONNECTIONS, writing

DRAINED_AT_MOST_SECONDS = 0.5


async def measure(bench: Bench) -> Sequence[Figure]:
    """Write bursts; between two of them everything is settled."""
    repeats, writes = bench.choose(1, 4, 9), bench.choose(500, 10_000)
    bench.facts.update({"repeats": repeats, "writes": f"{writes:,}", "connections": CONNECTIONS})
    drained, rates = [], []
    async with bench.sql() as sql, writing(bench) as writers:
        await writers.write_at_once(200)
        for _ in range(repeats):
            written = await writers.write_at_once(writes)
            await writers.worker.applied([event_id for event_id, _ in written])
            require(await sql.fetchval("SELECT count(*) = 0 FROM outbox_events"), "the outbox is empty")
            first, last = (end(at for _, at in written) for end in (min, max))
            visible = max(writers.worker.applied_at[event_id] for event_id, _ in written)
            drained.append(visible - last)
            rates.append(writes / (last - first))
            bench.say(f"{rates[-1]:,.0f} writes/s, drained {drained[-1]:.3f} s after the last")
    return [
        Figure("from the last commit to drained", "s", drained, at_most=DRAINED_AT_MOST_SECONDS),
        Figure("writes", "1/s", rates),
    ]
