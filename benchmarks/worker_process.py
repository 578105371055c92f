"""One real worker, and what its log says: so nobody need ask the database, which would disturb."""

import asyncio
import contextlib
import os
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import orjson

from deploy.local.errors import LocalError
from deploy.local.programs import launch

BEGIN_TIMEOUT_SECONDS = 30
SETTLE_TIMEOUT_SECONDS = 60
VISIBLE = {"applied", "conflated"}  # a conflated event is shown by the newer one of its batch


@dataclass(frozen=True)
class Worker:
    """A worker's process, the lines that it wrote, and when each event's batch had committed (since 1970)."""

    process: Process
    lines: list[bytes] = field(default_factory=list)
    applied_at: dict[int, float] = field(default_factory=dict)

    def read(self, line: bytes) -> None:
        """Note a line; it is stamped after its batch's COMMIT has returned."""
        self.lines.append(line)
        if b'"event_settled"' in line:
            fields = orjson.loads(line)
            if fields["outcome"] in VISIBLE:
                self.applied_at[fields["event_id"]] = datetime.fromisoformat(fields["timestamp"]).timestamp()

    async def applied(self, event_ids: Collection[int]) -> None:
        """Return when all of these live events are visible.

        Raises:
            LocalError: it takes too long.

        """
        missing = set(event_ids)
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT_SECONDS):
                while missing := missing - self.applied_at.keys():  # noqa: ASYNC110 - it is another process
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise LocalError(f"The worker takes too long. Its last lines:\n{self.last_lines()}") from None

    def last_lines(self) -> str:
        return b"".join(self.lines[-10:]).decode(errors="replace")

    def cpu_seconds(self) -> float | None:
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def cpu_percent_during(self, work: Awaitable[object]) -> float | None:
        """Return how much of one core it takes while the work is done; None where there is no /proc."""
        before, began = self.cpu_seconds(), time.perf_counter()
        await work
        after, seconds = self.cpu_seconds(), time.perf_counter() - began
        return None if before is None or after is None else 100 * (after - before) / seconds


@asynccontextmanager
async def working() -> AsyncIterator[Worker]:
    """Run one worker for as long as the block; it has begun, and ends in good order.

    Raises:
        LocalError: it did not begin.

    """
    worker = Worker(await launch("KILL", "worker"))
    began = asyncio.Event()

    async def read() -> None:
        while worker.process.stdout is not None and (line := await worker.process.stdout.readline()):
            worker.read(line)
            began.set()

    reading = asyncio.create_task(read())
    try:
        async with asyncio.timeout(BEGIN_TIMEOUT_SECONDS):
            await began.wait()
    except TimeoutError:
        worker.process.kill()
        msg = "The worker does not begin."
        raise LocalError(msg) from None
    try:
        yield worker
    finally:
        with contextlib.suppress(ProcessLookupError):
            worker.process.terminate()
        await worker.process.wait()
        await reading
