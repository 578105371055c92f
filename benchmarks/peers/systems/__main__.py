"""One role of a system as a process: it answers JSON lines on stdin with JSON lines on stdout.

`python -m benchmarks.peers.systems SYSTEM write` installs, writes and compares; `… work` carries over, says
now and then how many it applied, and reports when it is asked. The database is DATABASE_URL's.
"""

import asyncio
import importlib
import itertools
import json
import os
import sys
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TextIO, cast

import uvloop

from benchmarks.peers.systems import changes
from benchmarks.peers.systems.changes import Change
from benchmarks.peers.systems.system import System, Writer

LONGEST_LINE = 2**20
AT_ONCE = 4  # writers that fill a backlog
TELL_SECONDS = 0.05

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def own_stdout() -> TextIO:
    """Keep stdout for the answers; whatever else is printed goes to stderr."""
    kept = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return kept


async def converse(answer: Answer, out: TextIO) -> None:
    reader = asyncio.StreamReader(LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        print(json.dumps(await answer(json.loads(line))), file=out)


async def write_backlog(writer: Writer, plan: Iterable[Change]) -> list[tuple[int, float]]:
    """Write as fast as some writers can; those of a key are written in order, by one of them."""
    shares: list[list[Change]] = [[] for _ in range(AT_ONCE)]
    for change in plan:
        shares[zlib.crc32(change.collection_id.encode()) % AT_ONCE].append(change)

    async def write(share: list[Change]) -> list[tuple[int, float]]:
        return [await writer.write(change) for change in share]

    return list(itertools.chain.from_iterable(await asyncio.gather(*map(write, shares))))


async def write_steadily(writer: Writer, plan: Iterable[Change], rate: int) -> list[tuple[int, float]]:
    """Begin `rate` writes a second, whatever became of the earlier ones."""
    clock = asyncio.get_running_loop().time
    began = clock()
    writes = []
    for index, change in enumerate(plan):
        await asyncio.sleep(began + index / rate - clock())
        writes.append(asyncio.create_task(writer.write(change)))
    return await asyncio.gather(*writes)


async def compare(writer: Writer, pairs: int) -> dict[str, list[float]]:
    """Create collections one by one, in turns with and without the system; return the seconds of each."""
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    for pair in range(pairs):
        for name, write in (("with", writer.write), ("without", writer.write_alone)):
            began = time.perf_counter()
            await write(Change(pair, "created", f"{name}-{pair}"))
            seconds[name].append(time.perf_counter() - began)
    return seconds


async def answer_write(system: System, writer: Writer, asked: dict[str, Any]) -> dict[str, Any]:
    match asked:
        case {"do": "compare", "pairs": pairs}:
            return await compare(writer, pairs)
        case {"do": "write", "plan": [name, *sizes], "first": first, "rate": rate}:
            plan = itertools.islice(getattr(changes, name)(*sizes), first, None)
            written = write_steadily(writer, plan, rate) if rate else write_backlog(writer, plan)
            return {"committed": await written}
    return {"settings": dict(system.SETTINGS)}


async def write(system: System, url: str, out: TextIO) -> None:
    await system.install(url)
    async with system.writing(url) as writer:

        async def answer(asked: dict[str, Any]) -> dict[str, Any]:
            return await answer_write(system, writer, asked)

        await converse(answer, out)


async def work(system: System, url: str, out: TextIO) -> None:
    applied: list[tuple[int, float]] = []

    async def report() -> None:
        reported = 0
        while True:
            await asyncio.sleep(TELL_SECONDS)
            if reported < len(applied):
                reported = len(applied)
                print(json.dumps({"count": reported}), file=out)

    async def answer(_asked: dict[str, Any]) -> dict[str, Any]:
        return {"applied": applied}

    working = asyncio.create_task(system.work(url, lambda number: applied.append((number, time.time()))))
    reporting = asyncio.create_task(report())
    conversing = asyncio.create_task(converse(answer, out))
    await asyncio.wait({working, conversing}, return_when=asyncio.FIRST_COMPLETED)
    reporting.cancel()
    if working.done():
        working.result()


def main() -> None:
    name, role = sys.argv[1:]
    system = cast("System", importlib.import_module(f"benchmarks.peers.systems.{name}"))
    play = {"write": write, "work": work}[role](system, os.environ["DATABASE_URL"], own_stdout())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(play)


if __name__ == "__main__":
    main()
