"""Starting the services from a process of their own, as one kind of user or another."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local.children import command_of, tied_to_us
from tests.processes import HANG_SECONDS

ROOT = Path(__file__).parents[2]
STARTER = "tests.local.starter"


@dataclass(frozen=True)
class Start:
    """A process that has started both services, and what it said about them."""

    process: subprocess.Popen[str]
    pid: int
    servers: list[int]
    binaries: str
    guise: str
    starts: int


@contextlib.contextmanager
def start(
    directory: Path, prefix: Sequence[str] = (), environment: dict[str, str] | None = None
) -> Iterator[Start]:
    """Start both services in a process of their own; it ends them when the block ends."""
    with subprocess.Popen(
        tied_to_us([*prefix, sys.executable, "-m", STARTER, str(directory)], "KILL"),
        cwd=ROOT,
        env={**os.environ, "HOME": str(directory), **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("{"), said + process.stdout.read()
        yield Start(process, **json.loads(said))
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.wait(HANG_SECONDS)


def gone(pids: Sequence[int]) -> bool:
    """Say whether none of the processes is left; one that nobody has waited for yet does not count."""
    return not any(command_of(pid) for pid in pids)


def eventually(condition: Callable[[], Any]) -> bool:
    """Wait until the condition holds, and say whether it came to."""
    deadline = time.monotonic() + HANG_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
