"""PostgreSQL goes away while users write, and comes back."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from deploy.local.postgres import Postgres
from tests.acceptance.load import Answer, assert_all_present, prepare, steady_load
from tests.conftest import migrate
from tests.drift import drained, drift
from tests.processes import Running, environment, running_api, running_worker

pytestmark = [pytest.mark.slow, pytest.mark.timed]

CALM_SECONDS = 2
PAUSE_SECONDS = 2
LONGEST_ANSWER_SECONDS = 6
TERMINATE = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name LIKE 'collection-sync %'
"""


@dataclass(frozen=True)
class Service:
    """One API and one worker on a PostgreSQL that may be stopped."""

    postgres: Postgres
    worker: Running
    url: str

    async def assert_nothing_lost(self, answers: list[Answer]) -> None:
        """Every write was acknowledged and is there, or was refused as one that may be tried again."""
        statuses = Counter(answer.status for answer in answers)
        assert set(statuses) == {200, 503}, statuses
        assert {answer.retry_after for answer in answers if answer.status == 503} == {"1"}
        assert max(answer.seconds for answer in answers) < LONGEST_ANSWER_SECONDS
        assert self.worker.process.poll() is None
        assert len(self.worker.logged("worker_started")) == 1
        sql = await asyncpg.connect(self.postgres.url)
        await drained(sql)
        assert await drift(sql) == []
        await assert_all_present(sql, answers)
        await sql.close()


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[Postgres]:
    with Postgres(tmp_path / "postgres", settings={"fsync": "off"}) as server:
        migrate(server.url)
        yield server


@pytest.fixture
async def service(own_postgres: Postgres, redis_url: str) -> AsyncIterator[Service]:
    sql = await asyncpg.connect(own_postgres.url)
    await prepare(sql)
    await sql.close()
    env = environment(own_postgres.url, redis_url)
    async with running_worker(env) as worker, running_api(env) as (_, url):
        yield Service(own_postgres, worker, url)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["orderly", "crash"])
async def test_a_restart_of_postgresql_costs_no_acknowledged_write_and_no_process(
    how: signal.Signals, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a crash the last batches are lost with the WAL's buffers: their events are pending again."""
    monkeypatch.setattr(Postgres, "stop_signal", how)
    async with steady_load(service.url) as load:
        await asyncio.sleep(CALM_SECONDS)
        await asyncio.to_thread(service.postgres.stop)
        await asyncio.sleep(PAUSE_SECONDS)
        service.postgres.start()
        await asyncio.sleep(1)
        async with load.phase() as afterwards:
            await asyncio.sleep(CALM_SECONDS)

    assert {answer.status for answer in afterwards} == {200}
    await service.assert_nothing_lost(await load.answers())
    assert service.worker.logged("batch_failed")


async def test_killed_sessions_cost_no_acknowledged_write_and_no_process(service: Service) -> None:
    killer = await asyncpg.connect(service.postgres.url)
    async with steady_load(service.url) as load:
        await asyncio.sleep(CALM_SECONDS)
        for _ in range(20):
            assert await killer.fetchval(TERMINATE) > 0
            await asyncio.sleep(0.1)
        await killer.close()
        await asyncio.sleep(1)
        async with load.phase() as afterwards:
            await asyncio.sleep(CALM_SECONDS)

    assert {answer.status for answer in afterwards} == {200}
    await service.assert_nothing_lost(await load.answers())
    assert service.worker.logged("batch_failed")
