"""The dashboard's command as an operator runs it: a process without any environment."""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from deploy.local.children import tied_to_us
from tests import forked
from tests.forked import Forked
from tests.processes import HANG_SECONDS

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Serve = Callable[..., AbstractContextManager[tuple[httpx.Client, "Served"]]]


def words(*arguments: str | Path) -> list[str]:
    return ["-m", "worker.dashboard", *map(str, arguments)]


def command(*arguments: str | Path) -> list[str]:
    return tied_to_us([sys.executable, *words(*arguments)], "KILL")


@pytest.fixture
def run() -> Run:
    """Run the command to its end."""

    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return forked.run(words(*arguments), {}, timeout=HANG_SECONDS)

    return run


class Served:
    """A dashboard that serves, and what it has said on its standard error."""

    def __init__(self, process: Forked, errors: Path) -> None:
        self.process = process
        self._errors = errors

    @property
    def errors(self) -> str:
        return self._errors.read_text(encoding="utf-8")


@contextlib.contextmanager
def serving(*arguments: str | Path) -> Iterator[tuple[httpx.Client, Served]]:
    with tempfile.NamedTemporaryFile() as errors:
        process = Forked(words(*arguments), {}, stderr=errors.file)
        served = Served(process, Path(errors.name))
        assert process.stdout is not None
        with process.stdout as stdout:
            try:
                address = stdout.readline().strip()
                assert address.startswith("http://"), served.errors
                with httpx.Client(base_url=address, timeout=HANG_SECONDS, trust_env=False) as client:
                    wait_until(lambda: answers(client))
                    yield client, served
            finally:
                process.kill()
                process.wait(HANG_SECONDS)


@pytest.fixture
def serve() -> Serve:
    """Serve while the block lasts; yields a client and the process."""
    return serving


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/style.css").is_success
    except httpx.TransportError:
        return False


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for the condition."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < HANG_SECONDS
        time.sleep(0.02)
