"""A replica takes the place of Redis behind the same address, as with a managed one whose host dies."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from deploy.local.service import LOOPBACK, write_secret
from deploy.local.valkey import Valkey
from shared.settings import Settings
from tests.acceptance.load import all_applied, assert_all_present, prepare, rings_heard, steady_load
from tests.chaos.network import Channel
from tests.counters.draining import AS_A_BACKFILL
from tests.doorbell.place import listened_to
from tests.doorbell.test_lost_wakeups import worker_without_sweep
from tests.drift import drained, drift
from tests.processes import HANG_SECONDS, environment, running_api, running_worker

WRITES = 60
BOUNDS = ("LISTEN_SECONDS", "REDIS_TIMEOUT_SECONDS", "RESUBSCRIBE_SECONDS")
BOUND_SECONDS = 0.1


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "primary") as server:
        yield server


@pytest.fixture
def replica(tmp_path: Path, primary: Valkey) -> Iterator[Valkey]:
    """A second server that takes the same password."""
    (tmp_path / "replica").mkdir()
    write_secret(tmp_path / "replica" / "password", primary.password)
    with Valkey(tmp_path / "replica") as server:
        yield server


def way_to(server: Valkey, address: Channel) -> str:
    """Return the URL that leads to this server by that address."""
    return server.url.replace(f":{server.port}/", f":{address.port}/")


@asynccontextmanager
async def following(replica: Valkey, primary: Valkey) -> AsyncIterator[Redis]:
    """Make it a replica that has everything; yields a client of it."""
    async with Redis.from_url(primary.url) as first:
        await first.config_set("repl-diskless-sync-delay", 0)
    async with Redis.from_url(replica.url) as client:
        await client.config_set("masterauth", primary.password)
        await client.replicaof(LOOPBACK, primary.port)
        async with asyncio.timeout(HANG_SECONDS):
            while (await client.info("replication"))["master_link_status"] != "up":
                await asyncio.sleep(0.02)
        yield client


@pytest.mark.wide
async def test_a_failover_of_redis_fails_no_request_loses_nothing_and_the_bell_is_heard_again(
    database_url: str, primary: Valkey, replica: Valkey, sql: asyncpg.Connection
) -> None:
    await prepare(sql)
    await sql.execute(AS_A_BACKFILL)
    async with following(replica, primary) as successor, Channel(primary).listening() as address:
        env = environment(database_url, way_to(primary, address))
        async with running_worker(env) as worker, running_api(env) as (_, url):
            async with steady_load(url) as load:
                await rings_heard(worker)
                os.kill(primary.pid, signal.SIGKILL)
                await load.next_answers(WRITES)  # until the platform has promoted the replica
                await all_applied(sql)
                await successor.replicaof("NO", "ONE")
                address.lead_to(replica)
                await rings_heard(worker)
            await drained(sql)
    assert {answer.status for answer in load.answers} == {200}
    assert await drift(sql) == []
    await assert_all_present(sql, load.answers)


@pytest.mark.wide
async def test_who_listens_to_a_redis_that_vanished_without_a_word_soon_hears_its_successor(
    settings: Settings, primary: Valkey, replica: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its host lost power: nobody closes the connections. Who does not ask would listen to it for ever."""
    for name in BOUNDS:
        monkeypatch.setattr(f"worker.doorbell.listener.{name}", BOUND_SECONDS)
    async with following(replica, primary) as successor, Channel(primary).listening() as address:
        way = settings.model_copy(update={"redis_url": SecretStr(way_to(primary, address))})
        async with Redis.from_url(primary.url) as redis, worker_without_sweep(way):
            await listened_to(redis)
            os.kill(primary.pid, signal.SIGSTOP)
            address.lead_to(replica)
            looks = 0  # in the same loop as the worker, whose waits they outnumber on the slowest machine
            while not (
                is_heard := bool(await successor.pubsub_channels("collection_sync:*:wake"))
            ) and looks < 100 * len(BOUNDS):
                looks += 1
                await asyncio.sleep(BOUND_SECONDS / 5)
            assert is_heard
        os.kill(primary.pid, signal.SIGKILL)
