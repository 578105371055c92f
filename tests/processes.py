"""The product's own processes, started as an operator starts them, with their log lines to wait for."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from deploy.local.children import tied_to_us
from tests.forked import ROOT, Forked
from tests.log_lines import hold_against_contract, log_lines

# After so long whatever a test waits for has hung. A machine that is only busy must never get there.
HANG_SECONDS = 90


def way_to(database_url: str) -> dict[str, str]:
    """Return the variables by which a process reaches this database."""
    return {"DATABASE_URL": database_url}


def environment(database_url: str, redis_url: str, **more: str) -> dict[str, str]:
    """Return what a process of the product needs, and nothing of ours but PATH and HOME."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, **way_to(database_url), "REDIS_URL": redis_url, "PYTHONUNBUFFERED": "1", **more}


def free_port() -> int:
    """Return a loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(arguments: list[str], env: Mapping[str, str], root: Path) -> Forked | subprocess.Popen[str]:
    """Start `python ARGUMENTS`: anew where its code is not what a fork would have imported."""
    if root == ROOT and arguments[0] != "-c":
        return Forked(arguments, env)
    return subprocess.Popen(
        tied_to_us([sys.executable, *arguments], "KILL"),
        cwd=root,
        env=dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


class Running:
    """A started process; everything it printed is kept as lines, and held against the log's contract."""

    def __init__(self, arguments: list[str], env: Mapping[str, str], root: Path = ROOT) -> None:
        self.process = start(arguments, env, root)
        self.lines: list[str] = []
        self._is_held = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                self.lines.append(line)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return "".join(self.lines[-60:])

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the JSON lines with this event's name so far."""
        parsed = (json.loads(line) for line in self.lines.copy() if line.startswith("{"))
        return [line for line in parsed if line["event"] == event]

    async def wait_for(self, event: str, count: int = 1, seconds: float = HANG_SECONDS) -> dict[str, Any]:
        """Wait for the `count`th line with this event's name and return it."""
        deadline = time.monotonic() + seconds
        while len(found := self.logged(event)) < count:
            assert self.process.poll() is None, f"exited with {self.process.returncode}:\n{self.output}"
            assert time.monotonic() < deadline, f"no {event} within {seconds} s:\n{self.output}"
            await asyncio.sleep(0.01)
        return found[count - 1]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def exit_code(self, seconds: float = HANG_SECONDS) -> int:
        """Wait until the process has ended by itself and return its status."""
        code = await asyncio.to_thread(self.process.wait, seconds)
        self._reader.join(HANG_SECONDS)
        return code

    def kill(self) -> None:
        """End the process with SIGKILL, if it still runs, and reap it."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(HANG_SECONDS)
        self._reader.join(HANG_SECONDS)
        if not self._is_held:
            self._is_held = True
            hold_against_contract(log_lines(self.lines))


@contextlib.contextmanager
def running(arguments: list[str], env: Mapping[str, str], root: Path = ROOT) -> Iterator[Running]:
    """Start `python ARGUMENTS` in that checkout and kill it at the end, however the block ends."""
    process = Running(arguments, env, root)
    try:
        yield process
    finally:
        process.kill()


@contextlib.asynccontextmanager
async def running_worker(env: Mapping[str, str], root: Path = ROOT) -> AsyncIterator[Running]:
    """Start `python -m worker` and wait until it works."""
    with running(["-m", "worker"], env, root) as worker:
        await worker.wait_for("worker_started")
        yield worker


@contextlib.asynccontextmanager
async def running_api(
    env: Mapping[str, str], root: Path = ROOT, port: int | None = None
) -> AsyncIterator[tuple[Running, str]]:
    """Start the API and wait until it is ready; yields the process and its base URL.

    The port is a free one unless it is given.
    """
    url = f"http://127.0.0.1:{(port := port or free_port())}"
    arguments = ["-m", "uvicorn", "api.main:app", "--port", str(port), "--no-access-log"]
    with running(arguments, env, root) as api:
        async with httpx.AsyncClient() as client:
            deadline = time.monotonic() + HANG_SECONDS
            while not await _is_ready(client, url):
                assert api.process.poll() is None, api.output
                assert time.monotonic() < deadline, api.output
                await asyncio.sleep(0.05)
        yield api, url


async def _is_ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/readyz")).is_success
    except httpx.TransportError:
        return False
