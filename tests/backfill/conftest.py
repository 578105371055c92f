import asyncio
from types import SimpleNamespace

import asyncpg
import pytest

from tests.legacy_rows import seed
from tests.processes import HANG_SECONDS, environment


class Clock:
    """The time by which runs of this process keep their pace: it goes on only while they rest."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rests: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def rest(self, _interrupted: asyncio.Event, seconds: float) -> None:
        self.rests.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("worker.backfill.run.rest", clock.rest)
    monkeypatch.setattr("worker.backfill.pace.time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no run of this process take slowness for a signal that cannot be read."""
    monkeypatch.setattr("worker.backfill.throttle.SIGNAL_TIMEOUT_SECONDS", HANG_SECONDS)


@pytest.fixture
async def sql(sql: asyncpg.Connection) -> asyncpg.Connection:
    """With an owner and three projects in the database."""
    await seed(sql)
    return sql


@pytest.fixture
def env(database_url: str) -> dict[str, str]:
    """Without Redis: the command does not need it."""
    env = environment(database_url, "")
    del env["REDIS_URL"]
    return env
