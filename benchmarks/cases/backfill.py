"""A backfill until its last event is applied by one worker, beside the bare INSERT ... SELECT."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from benchmarks.bench import Bench, require, timed
from benchmarks.commands import Ran, memory_mib, run_command, unheard
from benchmarks.drains import drained_by_others
from benchmarks.figures import Beside, Figure
from benchmarks.legacy_rows import BARE_INSERT, differing, empty, make_rows

TARGET = 0.45  # of the speed of the bare statement
MOST_GROWTH = 1.25  # of the memory at a hundredth of the rows


@dataclass(frozen=True)
class Turn:
    """One backfill, applied: rows a second of it and of the bare statement, and both processes' memory."""

    bare: float
    enqueued: float
    applied: float
    command_mib: float
    worker_mib: float


async def measure(bench: Bench) -> Sequence[Figure]:
    """Take one turn at a hundredth of the rows and one at all of them, with the same worker."""
    rows = bench.choose(2_000, 1_000_000, 10_000_000)
    bench.facts.update(rows=rows)
    async with bench.sql() as sql, unheard("worker") as pid:
        small = await _turn(bench, sql, rows // 100, pid)
        again = await asyncio.to_thread(run_command, "worker.backfill")
        require(again.result["enqueued"] == 0, "a second backfill enqueues nothing")
        large = await _turn(bench, sql, rows, pid)
    return (
        Figure("bare INSERT ... SELECT", "rows/s", [large.bare]),
        Figure("backfill, enqueued", "rows/s", [large.enqueued], beside=[Beside("bare INSERT ... SELECT")]),
        Figure(
            "backfill, applied",
            "rows/s",
            [large.applied],
            beside=[Beside("bare INSERT ... SELECT", at_least=TARGET)],
        ),
        *_memory("command", small.command_mib, large.command_mib),
        *_memory("worker", small.worker_mib, large.worker_mib),
    )


def _memory(name: str, small: float, large: float) -> Sequence[Figure]:
    of_small = f"peak memory of the {name}, a hundredth"
    return (
        Figure(of_small, "MiB", [small]),
        Figure(f"peak memory of the {name}", "MiB", [large], beside=[Beside(of_small, at_most=MOST_GROWTH)]),
    )


async def _turn(bench: Bench, sql: asyncpg.Connection, rows: int, worker_pid: int) -> Turn:
    bench.say(f"{rows:,} rows")
    await make_rows(sql, rows)
    bare_seconds = await timed(sql.execute(BARE_INSERT))
    await empty(sql)
    ran, seconds = await backfilled(sql, rows)
    require(await differing(sql) == 0, "the target shows every row")
    turn = Turn(
        bare=rows / bare_seconds,
        enqueued=rows / ran.seconds,
        applied=rows / seconds,
        command_mib=ran.peak_mib,
        worker_mib=memory_mib(worker_pid, "peak"),
    )
    bench.say(
        f"{rows:,} rows: bare {bare_seconds:.1f} s, enqueued {ran.seconds:.1f} s, applied {seconds:.1f} s"
    )
    return turn


async def backfilled(sql: asyncpg.Connection, rows: int) -> tuple[Ran, float]:
    """Enqueue every row and wait until workers have applied it; return the command and the seconds of all."""
    began = time.perf_counter()
    ran = await asyncio.to_thread(run_command, "worker.backfill")
    await drained_by_others(sql)
    seconds = time.perf_counter() - began
    counts = [ran.result[name] for name in ("processed", "enqueued", "skipped")]
    require(counts == [rows, rows, 0], f"every row was enqueued: {counts}")
    return ran, seconds
