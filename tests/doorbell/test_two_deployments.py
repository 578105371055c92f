"""Two databases' processes on one Redis: each hears its own bell, and sweeps by its own timer."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from deploy.local.postgres import Postgres
from shared.postgres.database import create_engine
from shared.redis.client import open_redis
from shared.redis.deployment import learned_names, read_identity
from shared.redis.doorbell import ring
from shared.settings import Settings
from tests.databases import MIGRATED, Databases
from tests.doorbell.patience import be_patient_with_redis
from tests.legacy_rows import seed, set_collection
from tests.processes import HANG_SECONDS
from worker.drainer import Drainer
from worker.main import arq_settings, build_worker

PENDING = "SELECT count(*) FROM outbox_events"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient_with_redis(monkeypatch)


@pytest.fixture
def another(settings: Settings, databases: Databases) -> Iterator[Settings]:
    """The settings of a deployment with a database of its own, copied from the same template."""
    with databases.clone(MIGRATED) as url:
        yield Settings(database_url=SecretStr(url), redis_url=settings.redis_url)


@pytest.fixture
def empty_url(databases: Databases) -> Iterator[str]:
    with databases.clone("template1") as url:
        yield url


@contextlib.asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    url = settings.database_url.get_secret_value().replace("+asyncpg", "")
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


def restore(postgres: Postgres, source: str, into: str) -> None:
    dumped = subprocess.run([postgres.binary("pg_dump"), source], capture_output=True, check=True)
    subprocess.run(
        [str(postgres.binary("psql")), "-q", into], input=dumped.stdout, capture_output=True, check=True
    )


async def identity_of(settings: Settings) -> str:
    return (await learned_names(settings)).identity


async def test_a_copy_and_a_restored_dump_are_databases_of_their_own(
    database_url: str, settings: Settings, another: Settings, empty_url: str, postgres: Postgres
) -> None:
    """What was drawn at the migration is the same in all of them."""
    restored = Settings(database_url=SecretStr(empty_url), redis_url=settings.redis_url)
    await asyncio.to_thread(restore, postgres, database_url, empty_url)
    drawn = []
    for one in (settings, another, restored):
        async with connected(one) as connection:
            drawn.append(await connection.fetchval("SELECT database_id FROM collection_sync_version"))
    assert len(set(drawn)) == 1
    identities = {await identity_of(one) for one in (settings, another, restored)}
    assert len(identities) == 3
    assert await identity_of(settings) in identities


async def test_where_nobody_may_ask_which_server_it_is_two_databases_are_still_two(
    sql: asyncpg.Connection, another: Settings
) -> None:
    await sql.execute("CREATE ROLE nobody_much; GRANT SELECT ON collection_sync_version TO nobody_much")
    try:
        async with connected(another) as other:
            identities = [await read_identity(sql), await read_identity(other)]
            for connection in (sql, other):
                await connection.execute("""
                    REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC;
                    GRANT SELECT ON collection_sync_version TO nobody_much;
                    SET ROLE nobody_much
                """)
                identities.append(await read_identity(connection))
                async with connection.transaction(readonly=True):  # as preflight asks
                    assert await read_identity(connection) == identities[-1]
                await connection.execute("RESET ROLE; DROP OWNED BY nobody_much")
        assert len(set(identities)) == 4
    finally:
        await sql.execute("RESET ROLE; DROP OWNED BY nobody_much; DROP ROLE nobody_much")


async def test_a_copy_of_a_whole_server_gets_an_identity_of_its_own_by_one_statement(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    before = await identity_of(settings)
    await sql.execute("UPDATE collection_sync_version SET database_id = gen_random_uuid()")
    assert await identity_of(settings) != before


class Timers:
    """The timers of one deployment's workers: each rests until it is told to tick."""

    def __init__(self) -> None:
        self.drainers: list[Drainer] = []
        self._may_tick = asyncio.Semaphore(0)
        self._rests = 0

    async def rest(self) -> None:
        self._rests += 1
        await self._may_tick.acquire()

    async def tick(self) -> None:
        """Let one of them tick, and return when what it began for users' writes has ended."""
        rests = self._rests
        self._may_tick.release()
        async with asyncio.timeout(HANG_SECONDS):
            while self._rests == rests:
                await asyncio.sleep(0)
            await self.settled()

    async def settled(self) -> None:
        for drainer in self.drainers:
            await drainer.live_settled()


@contextlib.asynccontextmanager
async def working(settings: Settings, number: int, woken: list[str]) -> AsyncIterator[Timers]:
    """Run so many workers of it in this process."""
    timers, workers = Timers(), []
    for _ in range(number):
        arguments = arq_settings(settings) | {"handle_signals": False, "poll_delay": 0.05}
        drainer, duties = arguments["ctx"]["drainer"], arguments["ctx"]["duties"]
        duties._rest = timers.rest  # noqa: SLF001 - or it would be a matter of time
        drainer.wake_live = partial(note, woken, drainer.wake_live)
        workers.append(build_worker(settings, arguments))
        timers.drainers.append(drainer)
    running = [asyncio.create_task(worker.main()) for worker in workers]
    channel = (await learned_names(settings)).channel("live")
    async with open_redis(settings.redis_url.get_secret_value()) as redis, asyncio.timeout(HANG_SECONDS):
        while (await redis.pubsub_numsub(channel))[0][1] < number:
            await asyncio.sleep(0.01)
        await timers.settled()  # what they look for as they start
    try:
        yield timers
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        for worker in workers:
            await worker.close()


def note(woken: list[str], wake: Callable[[str], None], reason: str) -> None:
    woken.append(reason)
    wake(reason)


async def test_a_ring_wakes_the_workers_of_its_own_database_and_no_others(
    settings: Settings, another: Settings
) -> None:
    ours: list[str] = []
    theirs: list[str] = []
    names = [await learned_names(one) for one in (settings, another)]
    assert not set(names[0].channels) & set(names[1].channels)
    async with (
        working(settings, 1, ours),
        working(another, 2, theirs),
        open_redis(settings.redis_url.get_secret_value()) as redis,
    ):
        before = len(theirs)
        for _ in range(3):
            heard = ours.count("doorbell")
            await ring(redis, names[0])
            async with asyncio.timeout(HANG_SECONDS):
                while ours.count("doorbell") == heard:
                    await asyncio.sleep(0.01)
                while await redis.exists(names[0].queue):  # until ours take it, however often others poll
                    await asyncio.sleep(0.01)
        assert theirs[before:] == []


async def test_what_nobody_rang_for_is_found_by_the_next_tick_of_a_worker_of_its_own(
    settings: Settings, another: Settings
) -> None:
    """Four workers of another database share the Redis, and sweep as often as they can."""
    async with (
        working(another, 4, []) as theirs,
        working(settings, 1, []) as ours,
        connected(settings) as sql,
        connected(another) as their_sql,
        engine_of(settings) as engine,
        engine_of(another) as their_engine,
    ):
        for each in (sql, their_sql):
            await seed(each)
        for number in range(4):
            await set_collection(engine, f"c{number}", "text")
            await set_collection(their_engine, f"c{number}", "text")
            for _ in range(8):
                await theirs.tick()
            assert [await one.fetchval(PENDING) for one in (sql, their_sql)] == [1, 0]
            await ours.tick()
            assert await sql.fetchval(PENDING) == 0


@contextlib.asynccontextmanager
async def engine_of(settings: Settings) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(settings, application_name="test", pool_size=1, statement_timeout_seconds=30)
    yield engine
    await engine.dispose()
