"""What opening a long log takes the dashboard, with every line sound and with half of them corrupt."""

import asyncio
from collections.abc import Sequence

from benchmarks.bench import Bench, Scale, require
from benchmarks.figures import Beside, Figure
from benchmarks.long_log import open_log, write

FROM_SCALE = Scale.FULL

MOST_MIB = 300
SOUND, CORRUPT = "sound log", "half of its lines corrupt"


async def measure(bench: Bench) -> Sequence[Figure]:
    """Take turns of both logs; each time the page must count exactly the lines that were written."""
    size = bench.choose(10**6, 10**8, 10**9)
    bench.facts.update(bytes=size)
    speeds: dict[str, list[float]] = {SOUND: [], CORRUPT: []}
    peaks: list[float] = []
    for _ in range(bench.choose(1, 3)):
        for name, share in ((SOUND, 0.0), (CORRUPT, 0.5)):
            log, page = bench.directory / "long.log", bench.directory / "page.html"
            written = await asyncio.to_thread(write, log, size, share)
            ran = await asyncio.to_thread(open_log, log, page)
            counted = (ran.result["lines"], ran.result["broken"])
            require(
                counted == (written.lines, written.corrupt), f"every line is counted: {counted}, {written}"
            )
            speeds[name].append(written.size / 1e6 / ran.seconds)
            peaks.append(ran.peak_mib)
    return (
        Figure(SOUND, "MB/s", speeds[SOUND]),
        Figure(CORRUPT, "MB/s", speeds[CORRUPT], beside=[Beside(SOUND)]),
        Figure("peak memory of the command", "MiB", peaks, at_most=MOST_MIB),
    )
