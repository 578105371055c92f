"""A primary, its hot standby, and an address that leads to the one or to the other, as a DNS name does."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import asyncpg
import httpx
import pytest

from deploy.local.postgres import Postgres
from deploy.local.service import write_secret
from tests.acceptance.load import USERS, assert_all_present, prepare, steady_load
from tests.acceptance.test_dump_and_restore import AUDIT, told_by
from tests.chaos.network import Channel
from tests.chaos.spells import TERMINATE
from tests.chaos.system import via
from tests.databases import MIGRATED
from tests.drift import drained, drift
from tests.forked import run
from tests.processes import HANG_SECONDS, Running, environment, running_api, running_worker

pytestmark = [pytest.mark.slow, pytest.mark.wide]

ENOUGH = 30
SETTINGS = {"fsync": "off"}
OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'collection-sync%'"
WAIT_FOR_STANDBY = "ALTER SYSTEM SET synchronous_standby_names = '*'"
FOLLOW_NOBODY = "ALTER SYSTEM SET primary_conninfo = ''"
RELOAD = "SELECT pg_reload_conf()"
REPLICATED = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
RECEIVED = "SELECT count(*) FROM pg_stat_wal_receiver"
LOST = """
    SELECT (SELECT count(*) FROM activity_logs WHERE description LIKE '%''lost %')
        + (SELECT count(*) FROM collections WHERE description = 'lost')
        + (SELECT count(*) FROM project_collections WHERE research_context = 'lost')
"""
DRAWN = "SELECT last_value >= (SELECT max(version) FROM applied_versions) FROM outbox_events_id_seq"


@pytest.fixture
def primary(cluster: Path, tmp_path: Path) -> Iterator[Postgres]:
    copytree(cluster / "postgres", tmp_path / "primary")
    with Postgres(tmp_path / "primary", settings=SETTINGS) as server:
        yield server


@pytest.fixture
def standby(primary: Postgres, tmp_path: Path) -> Iterator[Postgres]:
    """A copy that follows the primary, and takes the same password."""
    directory = tmp_path / "standby"
    directory.mkdir()
    write_secret(directory / "password", primary.password)
    subprocess.run(
        [
            *(primary.binary("pg_basebackup"), "--pgdata", directory / "data", "--dbname", primary.url),
            *("--write-recovery-conf", "--checkpoint=fast"),
        ],
        check=True,
        capture_output=True,
    )
    with Postgres(directory, settings=SETTINGS) as server:
        yield server


@dataclass(frozen=True)
class Service:
    """One API and one worker, with the address of their database."""

    address: Channel
    worker: Running
    url: str


@asynccontextmanager
async def connected(server: Postgres) -> AsyncIterator[asyncpg.Connection]:
    sql = await asyncpg.connect(server.url_of(MIGRATED))
    yield sql
    await sql.close()


@pytest.fixture
async def service(primary: Postgres, redis_url: str) -> AsyncIterator[Service]:
    async with connected(primary) as sql:
        await prepare(sql)
    async with Channel(primary).listening() as address:
        env = environment(via(primary.url_of(MIGRATED), address), redis_url)
        async with running_worker(env) as worker, running_api(env) as (_, url):
            yield Service(address, worker, url)


async def until(sql: asyncpg.Connection, query: str, count: int) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while await sql.fetchval(query) != count:
            await asyncio.sleep(0.02)


async def promote(standby: Postgres, primary: Postgres, address: Channel) -> None:
    """Let the primary's host die, the standby take its place, and the address lead there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Postgres, "stop_signal", signal.SIGQUIT)
        await asyncio.to_thread(primary.stop)
    async with connected(standby) as sql:
        assert await sql.fetchval("SELECT pg_promote(true, $1)", HANG_SECONDS)
    address.lead_to(standby)


async def test_while_the_address_leads_to_a_standby_nothing_is_written_and_all_is_well_once_it_is_right(
    primary: Postgres, standby: Postgres, service: Service
) -> None:
    async with connected(primary) as sql, connected(standby) as sql_of_standby:
        async with steady_load(service.url) as load:
            await load.answered(ENOUGH)
            service.address.lead_to(standby)
            await sql.execute(TERMINATE)
            await load.answered_in_a_row(ENOUGH, status=503)
            status, told = await told_by(service.url)
            assert (status, "leads to a standby" in str(told)) == (503, True)
            beats = len(service.worker.logged("worker_heartbeat"))
            beat = await service.worker.wait_for("worker_heartbeat", beats + 1)
            assert (beat["database"], beat["hint"]) == ("unfit", told)
            service.address.lead_to(primary)
            afterwards = await load.next_answers(ENOUGH)
            # Whoever found a connection that was being opened to the standby tries once more.
            assert sum(answer.status != 200 for answer in afterwards) <= USERS
            assert await told_by(service.url) == (200, None)
        assert {answer.status for answer in load.answers} == {200, 503}
        await until(sql_of_standby, OURS, 0)
        await drained(sql)
        assert await drift(sql) == []
        await assert_all_present(sql, load.answers)


async def test_a_switch_over_loses_nothing_that_was_acknowledged_and_replicated(
    primary: Postgres, standby: Postgres, service: Service
) -> None:
    """Batches wait for no standby, so some of the last are taken back: their events are pending again."""
    async with connected(primary) as sql:
        await sql.execute(WAIT_FOR_STANDBY)
        await sql.execute(RELOAD)
        await until(sql, REPLICATED, 1)
        async with steady_load(service.url) as load:
            await load.answered(ENOUGH)
            await promote(standby, primary, service.address)
            await load.answered_in_a_row(ENOUGH)
        sql.terminate()
    assert {answer.status for answer in load.answers} == {200, 503}
    await assert_in_order(standby, service)
    async with connected(standby) as sql:
        await assert_all_present(sql, load.answers)


async def test_what_a_promoted_standby_lacks_is_gone_with_its_rows_and_events_and_nothing_else(
    primary: Postgres, standby: Postgres, service: Service
) -> None:
    """It was behind when the primary's host died: what was acknowledged since is lost, but not by halves."""
    async with connected(standby) as sql_of_standby:
        async with steady_load(service.url) as load:
            await load.answered(ENOUGH)
        async with connected(primary) as sql:
            await drained(sql)
            position = await sql.fetchval("SELECT pg_current_wal_insert_lsn()::text")
        await until(sql_of_standby, f"SELECT (pg_last_wal_replay_lsn() >= '{position}')::int", 1)
        await sql_of_standby.execute(FOLLOW_NOBODY)
        await sql_of_standby.execute(RELOAD)
        await until(sql_of_standby, RECEIVED, 0)
        async with httpx.AsyncClient(
            base_url=f"{service.url}/projects/p1", headers={"User-ID": "owner"}
        ) as client:
            for number in range(ENOUGH):
                body = {"collection_name": f"lost {number}", "description": "lost"}
                assert (await client.put(f"/collections/c{number}", json=body)).status_code == 200
                assert (await client.post("/collections", json=body)).status_code == 200
            async with connected(primary) as sql:
                await drained(sql)
                assert await sql.fetchval(LOST) == 6 * ENOUGH
        await promote(standby, primary, service.address)
        async with steady_load(service.url) as load_afterwards:
            await load_afterwards.answered_in_a_row(ENOUGH)
    await assert_in_order(standby, service)
    async with connected(standby) as sql:
        await assert_all_present(sql, load.answers)
        assert await sql.fetchval(LOST) == 0


async def assert_in_order(server: Postgres, service: Service) -> None:
    """Nothing died or differs, no sequence is wrong, and no process of ours ended."""
    async with connected(server) as sql:
        await drained(sql)
        assert await drift(sql) == []
        assert await sql.fetchval(DRAWN)
    assert await told_by(service.url) == (200, None)
    assert service.worker.process.poll() is None
    audited = await asyncio.to_thread(run, AUDIT, environment(server.url_of(MIGRATED), "redis://127.0.0.1:1"))
    assert audited.returncode == 0, audited.stdout
