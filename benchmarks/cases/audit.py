"""An audit of tables that agree, on one connection and on two, beside the bare FULL JOIN that counts."""

import asyncio
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from benchmarks.bench import Bench, Scale, require, timed
from benchmarks.commands import Ran, run_command
from benchmarks.figures import Beside, Figure
from benchmarks.legacy_rows import differing, fill_target, make_rows

TARGET = 0.7  # of the speed of the bare statement
CONNECTIONS = {"audit, one connection": 1, "audit, two connections": 2}
BARE, ONE, TWO = ("bare FULL JOIN", *CONNECTIONS)

# Of new sessions.
PARALLEL = "ALTER DATABASE postgres RESET max_parallel_workers_per_gather"
NOT_PARALLEL = "ALTER DATABASE postgres SET max_parallel_workers_per_gather = 0"


async def measure(bench: Bench) -> Sequence[Figure]:
    """Take turns of all three, without parallel workers of PostgreSQL and with as many as it likes."""
    rows = bench.choose(2_000, 1_000_000, 10_000_000)
    bench.facts.update(rows=rows)
    modes = {"": NOT_PARALLEL, ", parallel query": PARALLEL}
    if bench.scale is Scale.SMALL:
        del modes[""]
    speeds = {how: defaultdict[str, list[float]](list) for how in modes}
    peaks: list[float] = []
    async with bench.sql() as sql:
        await make_rows(sql, rows)
        await fill_target(sql)
        for _ in range(bench.choose(1, 3)):
            for how, setting in modes.items():
                await sql.execute(setting)
                speeds[how][BARE].append(rows / await _bare(bench))
                for name, connections in CONNECTIONS.items():
                    ran = await audited(rows, connections)
                    speeds[how][name].append(rows / ran.result["duration_seconds"])
                    peaks.append(ran.peak_mib)
    return (
        *(figure for how, of_mode in speeds.items() for figure in _figures(of_mode, how)),
        Figure("peak memory of the command", "MiB", peaks),
    )


def _figures(speeds: Mapping[str, Sequence[float]], how: str) -> Sequence[Figure]:
    bare, one = BARE + how, ONE + how
    scaling = -math.inf if how else 1.0  # with parallel query one connection has all cores already
    return (
        Figure(bare, "rows/s", speeds[BARE]),
        Figure(one, "rows/s", speeds[ONE], beside=[Beside(bare, at_least=TARGET)]),
        Figure(TWO + how, "rows/s", speeds[TWO], beside=[Beside(one, at_least=scaling), Beside(bare)]),
    )


async def _bare(bench: Bench) -> float:
    async with bench.sql() as sql:
        return await timed(differing(sql))


async def audited(rows: int, connections: int) -> Ran:
    """Audit, and make sure that all pairs were compared and agree."""
    ran = await asyncio.to_thread(run_command, "worker.audit", "--connections", str(connections))
    proved = ran.result["verdict"] == "in_sync" and ran.result["compared"] == ran.result["home_rows"] == rows
    require(proved, f"all pairs were compared and agree: {ran.result}")
    return ran
