"""Processes that write for a system, or carry over for it, and what they report."""

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from benchmarks.peers.environments import Unmeasured
from deploy.local.children import tied_to_us
from deploy.local.programs import ROOT

LONGEST_LINE = 2**24  # a report of all events
TURN_TIMEOUT_SECONDS = 180
POLL_SECONDS = 0.05
SETTLED = b'"event_settled"'


@asynccontextmanager
async def patience(what: str) -> AsyncIterator[None]:
    """Let the block take so long, and no longer.

    Raises:
        Unmeasured: it would take longer.

    """
    try:
        async with asyncio.timeout(TURN_TIMEOUT_SECONDS):
            yield
    except TimeoutError:
        raise Unmeasured(f"{what} took over {TURN_TIMEOUT_SECONDS} s") from None


@dataclass(frozen=True)
class Place:
    """Where a system is measured: a database of its own, and a directory for what processes print."""

    url: str
    directory: Path

    async def start(self, *command: str, stdin: int, stdout: Any, stderr: Any) -> Process:  # noqa: ANN401
        """Start a process in the checkout that ends with us and finds the database."""
        return await asyncio.create_subprocess_exec(
            *tied_to_us(command, "KILL"),
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": self.url},
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            limit=LONGEST_LINE,
        )


@asynccontextmanager
async def _ended(process: Process) -> AsyncIterator[None]:
    """Kill the process at the end: all that it could lose is thrown away as well."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@dataclass
class Role:
    """A process of `benchmarks.peers.systems`."""

    process: Process
    errors: Path
    count: int = 0
    _answers: asyncio.Queue[dict[str, Any] | None] = field(default_factory=asyncio.Queue)

    async def ask(self, **asked: object) -> dict[str, Any]:
        """Return the answer to a line.

        Raises:
            Unmeasured: it ended or took too long; the message shows the last line of its stderr.

        """
        assert self.process.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(ConnectionError):
            self.process.stdin.write(f"{json.dumps(asked)}\n".encode())
        async with patience("an answer"):
            answer = await self._answers.get()
        if answer is None:
            raise self.end()
        return answer

    def end(self) -> Unmeasured:
        last_line = self.errors.read_text(errors="replace").strip().rpartition("\n")[2]
        return Unmeasured(f"a process ended: {last_line}")

    async def read(self) -> None:
        while self.process.stdout is not None and (line := await self.process.stdout.readline()):
            reported = json.loads(line)
            self.count = reported.get("count", self.count)
            if "count" not in reported:
                self._answers.put_nowait(reported)
        self._answers.put_nowait(None)


@asynccontextmanager
async def role(place: Place, python: Path, module: str, name: str) -> AsyncIterator[Role]:
    command = (str(python), "-m", "benchmarks.peers.systems", module, name)
    errors = place.directory / f"{module}-{name}.txt"
    with errors.open("wb") as stderr:
        process = await place.start(*command, stdin=PIPE, stdout=PIPE, stderr=stderr)
    async with _ended(process):
        started = Role(process, errors)
        reading = asyncio.create_task(started.read())
        yield started
    await reading


class Workers(Protocol):
    """One or more workers of a system."""

    async def settle(self, count: int) -> None:
        """Wait until they have dealt with `count` events; raise Unmeasured when they do not."""

    async def applied(self) -> dict[int, float]:
        """Return by the numbers of events when the COMMIT that applied them had returned."""


@dataclass(frozen=True)
class PeerWorkers:
    """Workers that count what they applied."""

    roles: list[Role]

    async def settle(self, count: int) -> None:
        async with patience(f"{count} events"):
            while sum(role.count for role in self.roles) < count:
                if ended := [role for role in self.roles if role.process.returncode is not None]:
                    raise ended[0].end()
                await asyncio.sleep(POLL_SECONDS)

    async def applied(self) -> dict[int, float]:
        reports = [await role.ask(do="report") for role in self.roles]
        return {number: at for report in reports for number, at in report["applied"]}


@dataclass(frozen=True)
class OwnWorkers:
    """collection-sync's own workers, as an operator starts them, each with its log in a file."""

    logs: list[Path]

    async def settle(self, count: int) -> None:
        """Wait for the lines of `count` events; the database is not asked, which would disturb."""
        async with patience(f"{count} events"):
            while sum(log.read_bytes().count(SETTLED) for log in self.logs) < count:  # noqa: ASYNC110 - files
                await asyncio.sleep(POLL_SECONDS)

    async def applied(self) -> dict[int, float]:
        """Read the lines of all events; those that a newer one made needless count as well."""
        lines = (line for log in self.logs for line in log.read_bytes().splitlines())
        reported = (json.loads(line) for line in lines if SETTLED in line)
        return {line["event_id"]: datetime.fromisoformat(line["timestamp"]).timestamp() for line in reported}


@asynccontextmanager
async def own_workers(place: Place, count: int) -> AsyncIterator[Workers]:
    async with AsyncExitStack() as stack:
        logs = [place.directory / f"worker-{number}.txt" for number in range(count)]
        for log in logs:
            with log.open("wb") as printed:
                command = (sys.executable, "-m", "worker")
                process = await place.start(*command, stdin=DEVNULL, stdout=printed, stderr=printed)
            await stack.enter_async_context(_ended(process))
        yield OwnWorkers(logs)


@asynccontextmanager
async def peer_workers(place: Place, python: Path, module: str, count: int) -> AsyncIterator[Workers]:
    async with AsyncExitStack() as stack:
        roles = [await stack.enter_async_context(role(place, python, module, "work")) for _ in range(count)]
        yield PeerWorkers(roles)
