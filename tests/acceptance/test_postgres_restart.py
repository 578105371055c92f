"""PostgreSQL goes away while users write, and comes back."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import asyncpg
import pytest

from deploy.local.postgres import Postgres
from tests.acceptance.load import Answer, assert_all_present, prepare, steady_load
from tests.databases import MIGRATED
from tests.drift import drained, drift
from tests.processes import HANG_SECONDS, Running, environment, running_api, running_worker

ENOUGH = 30
KILLS = 10
TERMINATE = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'collection-sync %'
"""


@dataclass(frozen=True)
class Service:
    """One API and one worker on a PostgreSQL that may be stopped."""

    postgres: Postgres
    database_url: str
    worker: Running
    url: str

    async def assert_nothing_lost(self, answers: list[Answer]) -> None:
        """Every write was acknowledged and is there, or was refused as one that may be tried again."""
        statuses = Counter(answer.status for answer in answers)
        assert set(statuses) == {200, 503}, statuses
        assert {answer.retry_after for answer in answers if answer.status == 503} == {"1"}
        assert self.worker.process.poll() is None
        assert len(self.worker.logged("worker_started")) == 1
        sql = await asyncpg.connect(self.database_url)
        try:
            await drained(sql)
            assert await drift(sql) == []
            await assert_all_present(sql, answers)
        finally:
            await sql.close()


@pytest.fixture
def own_postgres(cluster: Path, tmp_path: Path) -> Iterator[Postgres]:
    copytree(cluster / "postgres", tmp_path / "postgres")
    with Postgres(tmp_path / "postgres", settings={"fsync": "off"}) as server:
        yield server


@pytest.fixture
async def service(own_postgres: Postgres, redis_url: str) -> AsyncIterator[Service]:
    database_url = own_postgres.url_of(MIGRATED)
    sql = await asyncpg.connect(database_url)
    await prepare(sql)
    await sql.close()
    env = environment(database_url, redis_url)
    async with running_worker(env) as worker, running_api(env) as (_, url):
        yield Service(own_postgres, database_url, worker, url)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["orderly", "crash"])
async def test_a_restart_of_postgresql_costs_no_acknowledged_write_and_no_process(
    how: signal.Signals, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a crash the last batches are lost with the WAL's buffers: their events are pending again.

    PostgreSQL is away for as long as we want: nobody's answer waits for its return.
    """
    monkeypatch.setattr(Postgres, "stop_signal", how)
    async with steady_load(service.url) as load:
        await load.answered(ENOUGH)
        await asyncio.to_thread(service.postgres.stop)
        await load.answered(ENOUGH, status=503)
        await service.worker.wait_for("batch_failed")
        service.postgres.start()
        await load.answered_in_a_row(ENOUGH)
        afterwards = await load.next_answers(ENOUGH)

    assert {answer.status for answer in afterwards} == {200}
    await service.assert_nothing_lost(load.answers)


async def test_killed_sessions_cost_no_acknowledged_write_and_no_process(service: Service) -> None:
    killer = await asyncpg.connect(service.database_url)
    async with steady_load(service.url) as load:
        await load.answered(ENOUGH)
        kills = 0
        async with asyncio.timeout(HANG_SECONDS):
            while (
                kills < KILLS
                or not any(answer.status == 503 for answer in load.answers)
                or not service.worker.logged("batch_failed")
            ):
                kills += await killer.fetchval(TERMINATE) > 0
                await asyncio.sleep(0.05)
        await killer.close()
        await load.answered_in_a_row(ENOUGH)
        afterwards = await load.next_answers(ENOUGH)

    assert {answer.status for answer in afterwards} == {200}
    await service.assert_nothing_lost(load.answers)
