"""The dashboard's command as an operator runs it: a process without any environment."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from deploy.local.children import tied_to_us
from tests.processes import ROOT

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Serve = Callable[..., AbstractContextManager[tuple[httpx.Client, "subprocess.Popen[str]"]]]


def command(*arguments: str | Path) -> list[str]:
    return tied_to_us([sys.executable, "-m", "worker.dashboard", *map(str, arguments)], "KILL")


@pytest.fixture
def run() -> Run:
    """Run the command to its end."""

    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command(*arguments), cwd=ROOT, env={}, capture_output=True, text=True, timeout=60, check=False
        )

    return run


@contextlib.contextmanager
def serving(*arguments: str | Path) -> Iterator[tuple[httpx.Client, "subprocess.Popen[str]"]]:
    process = subprocess.Popen(
        command(*arguments), cwd=ROOT, env={}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith("http://"), process.communicate()
            with httpx.Client(base_url=address, timeout=20, trust_env=False) as client:
                wait_until(lambda: answers(client))
                yield client, process
        finally:
            process.kill()


@pytest.fixture
def serve() -> Serve:
    """Serve while the block lasts; yields a client and the process."""
    return serving


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/style.css").is_success
    except httpx.TransportError:
        return False


def wait_until(condition: Callable[[], object], seconds: float = 20) -> float:
    """Wait for the condition and return how long that took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds
        time.sleep(0.02)
    return time.monotonic() - begun
