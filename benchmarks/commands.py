"""The operators' commands as processes, and the memory that processes take."""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deploy.local.errors import LocalError
from deploy.local.programs import ROOT, launch

# ru_maxrss is in KiB, but on macOS in bytes.
MAXRSS_PER_MIB = 1024**2 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Ran:
    """A command that ended: its JSON line, its duration, its processor time, and the most memory it held."""

    result: dict[str, Any]
    seconds: float
    cpu_seconds: float
    peak_mib: float


def run_command(*words: str) -> Ran:
    """Run `python -m` with these words and --json to its end.

    Raises:
        LocalError: it failed; the message shows the end of what it said.

    """
    began = time.perf_counter()
    with tempfile.NamedTemporaryFile() as taken:
        command = [sys.executable, "-m", *words, "--json"]
        ran = subprocess.run(  # noqa: S603 - our own commands
            [sys.executable, "-m", "benchmarks.apart", taken.name, *command],
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
        seconds = time.perf_counter() - began
        if ran.returncode != 0:
            said = ran.stderr[-2000:].decode(errors="replace")
            raise LocalError(f"{' '.join(words)} failed:\n{said}")
        cpu_seconds, peak = json.load(taken)
    return Ran(json.loads(ran.stdout), seconds, cpu_seconds, peak / MAXRSS_PER_MIB)


@asynccontextmanager
async def unheard(module: str) -> AsyncIterator[int]:
    """Run `python -m` this module, from its first line on, for as long as the block; yields its process id.

    Nobody looks at what else it says.

    Raises:
        LocalError: it did not begin.

    """
    process = await launch("KILL", module)
    try:
        if process.stdout is None or not await process.stdout.readline():
            raise LocalError(f"{module} did not begin.")
        reading = asyncio.create_task(_discard(process.stdout))
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
    await reading


async def _discard(stream: asyncio.StreamReader) -> None:
    while await stream.read(2**16):
        pass


def memory_mib(pid: int, which: Literal["now", "peak"] = "now") -> float:
    """Return the resident memory of a process: now, or the most it ever was.

    Without /proc the peak is not known, and what it is now is returned instead.

    Raises:
        LocalError: there is no such process.

    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except FileNotFoundError:
        return _asked_of_ps(pid)
    found = re.search(rf"{'VmRSS' if which == 'now' else 'VmHWM'}:\s+(\d+) kB", status)
    if found is None:
        raise LocalError(f"Process {pid} has ended.")
    return int(found[1]) / 1024


def _asked_of_ps(pid: int) -> float:
    asked = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if not asked.stdout.strip():
        raise LocalError(f"Process {pid} has ended.")
    return int(asked.stdout) / 1024
