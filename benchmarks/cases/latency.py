"""From a write's commit until project_collections shows it: 100/s and 1,000/s, idle and beside a backfill."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from benchmarks.backfill_process import backfilling
from benchmarks.bench import Bench, Scale
from benchmarks.figures import Beside, Figure
from benchmarks.legacy_rows import insert_collections
from benchmarks.live_writes import Writers, steadily, writing
from benchmarks.percentiles import p50_p95_p99_ms

P99_AT_MOST_MS = {100: 15.0, 1_000: 50.0}
WARM_UP_SECONDS = 2
LIMIT = "p50 of a bare upsert at 100/s"


async def measure(bench: Bench) -> Sequence[Figure]:
    """Write at each rate without and with a backfill, in turns."""
    repeats = bench.choose(1, 3, 7)
    rows = bench.choose(5_000, 400_000, 2_000_000)
    seconds = {100: bench.choose(1, 10, 40) / 2, 1_000: bench.choose(1, 12, 80) / 4}
    options = ["--rate", "1000"] if bench.scale is Scale.SMALL else []  # so that few rows last
    bench.facts.update({"repeats": repeats, "rows of the backfill": f"{rows:,}"})
    samples: defaultdict[str, list[float]] = defaultdict(list)
    async with bench.sql() as sql, writing(bench) as writers:
        await insert_collections(sql, rows)
        await writers.write_steadily(100, bench.choose(0, WARM_UP_SECONDS))
        for _ in range(repeats):
            samples[LIMIT].append(
                p50_p95_p99_ms(await steadily(100, seconds[100], writers.write_and_upsert))[0]
            )
            await write(writers, seconds, "", samples)
            async with backfilling(sql, *options):
                await write(writers, seconds, " beside a backfill", samples)
            bench.say(", ".join(f"{name} {taken[-1]:.1f}" for name, taken in samples.items()))
    return [figure(name, taken) for name, taken in samples.items()]


async def write(
    writers: Writers, seconds: Mapping[int, float], beside: str, samples: Mapping[str, list[float]]
) -> None:
    for rate, duration in seconds.items():
        latencies = await writers.write_steadily(rate, duration)
        for percent, value in zip((50, 95, 99), p50_p95_p99_ms(latencies), strict=True):
            samples[name_of(percent, rate, beside)].append(value)


def name_of(percent: int, rate: int, beside: str = "") -> str:
    return f"p{percent} at {rate:,}/s{beside}"


def figure(name: str, taken: Sequence[float]) -> Figure:
    alone, _, backfill = name.partition(" beside")
    at_most = {name_of(99, rate): limit for rate, limit in P99_AT_MOST_MS.items()}.get(alone, math.inf)
    beside = [Beside(alone)] if backfill else [Beside(LIMIT)] if alone == name_of(50, 100) else []
    return Figure(name, "ms", taken, beside=beside, at_most=at_most)
