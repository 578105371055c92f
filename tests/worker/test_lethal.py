"""An event that ends the process, or the server, that has it in hand must not do so for ever."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from deploy.local.postgres import Postgres
from shared.events import Source
from shared.postgres.database import create_engine
from shared.settings import Settings
from tests.databases import MIGRATED
from tests.draining import ALL_LANES
from tests.drift import drift
from tests.legacy_rows import seed, set_collection
from tests.processes import HANG_SECONDS, environment, running, running_worker
from tests.race import freezing
from tests.worker.lethal import LETHAL
from worker.drainer import Drainer
from worker.relay.batch import Batch
from worker.relay.caution import LOST_CONNECTIONS, TOGETHER, Caution
from worker.relay.claim import BULK_LANES, LIVE_LANE
from worker.relay.outcomes import Outcome
from worker.relay.run import BatchFailedError
from worker.vitals.presence import Presence

LINGERING = """
    SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'
"""
BYSTANDERS = 60
MOST_STARTS = 20
BEGIN_UNCLEANLY = "INSERT INTO worker_processes (name, heartbeat_at) VALUES ('x:1', now() - interval '4 s')"

BE_SILENT = "UPDATE worker_processes SET heartbeat_at = heartbeat_at - interval '4 s'"


@pytest.fixture
def env(settings: Settings) -> dict[str, str]:
    return environment(settings.database_url.get_secret_value(), settings.redis_url.get_secret_value())


async def pending(sql: asyncpg.Connection) -> int:
    count: int = await sql.fetchval("SELECT count(*) FROM outbox_events")
    return count


async def test_an_event_that_kills_every_worker_that_touches_it_is_found_and_set_aside(
    engine: AsyncEngine, sql: asyncpg.Connection, env: dict[str, str]
) -> None:
    for number in range(BYSTANDERS):
        await set_collection(engine, LETHAL if number == BYSTANDERS // 2 else f"c{number}")
    deaths = 0
    async with asyncio.timeout(HANG_SECONDS):
        while await pending(sql):
            assert deaths < MOST_STARTS
            with running(["-m", "tests.worker.lethal"], env) as worker:
                while worker.process.poll() is None and await pending(sql):
                    await asyncio.sleep(0.02)
                deaths += worker.process.poll() == -signal.SIGKILL
            await sql.execute(BE_SILENT)
    letters = await sql.fetch("SELECT aggregate_id, attempts, sqlstate, error FROM outbox_dead_letters")
    assert [tuple(row) for row in letters] == [
        (
            LETHAL,
            len(TOGETHER),
            None,
            "the process or the server ended 3 times while it had this event in hand",
        )
    ]
    assert deaths >= len(TOGETHER)
    assert await drift(sql) == [LETHAL]  # everybody else is there

    await set_collection(engine, LETHAL, "it was not the collection's fault")
    async with running_worker(env) as worker:
        await worker.wait_for("event_settled")
    assert await drift(sql) == []


@pytest.fixture
async def doubtful(engine: AsyncEngine, sql: asyncpg.Connection) -> Caution:
    """As it begins after two unclean ends."""
    for _ in range(2):
        await sql.execute(BEGIN_UNCLEANLY)
    caution = Caution(Presence(engine, "test:1"))
    assert await caution.is_due(LIVE_LANE)
    return caution


async def drained_with(caution: Caution, engine: AsyncEngine) -> list[Batch]:
    batches = []
    while await caution.is_due(ALL_LANES):
        batches.append(await caution.run_once(engine, ALL_LANES))
    return batches


async def test_one_unclean_end_or_one_in_good_order_gives_no_cause_to_doubt(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute(BEGIN_UNCLEANLY)
    orderly = Presence(engine, "test:1")
    await orderly.arrive()
    await orderly.leave()
    await sql.execute("UPDATE worker_processes SET heartbeat_at = heartbeat_at - interval '5 s'")
    next_one = Presence(engine, "test:2")
    assert await next_one.arrive() == 1
    await next_one.leave()
    assert not await Caution(Presence(engine, "test:3")).is_due(LIVE_LANE)


async def test_events_that_were_in_hand_more_often_are_taken_fewer_at_a_time(
    doubtful: Caution, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    for number in range(40):
        await set_collection(engine, f"c{number}")
    await sql.execute("UPDATE outbox_events SET attempts = 1 WHERE id > 5")
    await sql.execute("UPDATE outbox_events SET attempts = 2 WHERE id > 38")
    await sql.execute("UPDATE outbox_events SET attempts = 3 WHERE id = 20")
    batches = await drained_with(doubtful, engine)
    assert [len(batch.events) for batch in batches] == [1, 5, *[1] * 34, 0]
    assert batches[0].settlements[20].outcome is Outcome.DEAD
    assert await sql.fetchval("SELECT count(*) FROM project_collections") == 39


async def test_marks_are_on_disk_before_their_events_are_touched_and_go_with_them(
    doubtful: Caution, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    point = "guard: claimed, before the guard"
    await freezing.install(sql)
    for number in range(3):
        await set_collection(engine, f"c{number}")
    async with freezing.frozen(sql, point):
        settling = asyncio.create_task(drained_with(doubtful, engine))
        await freezing.arrived(sql, point)
        assert await sql.fetchval("SELECT array_agg(attempts) FROM outbox_events") == [1, 1, 1]
    await settling
    assert await pending(sql) == 0


async def test_a_fault_that_the_process_lives_to_see_costs_no_mark(
    doubtful: Caution, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1")
    await sql.execute("ALTER TABLE project_collections RENAME TO away")
    for _ in range(5):
        with pytest.raises(BatchFailedError):
            await doubtful.run_once(engine, ALL_LANES)
    assert await sql.fetchval("SELECT attempts FROM outbox_events") == 1  # the present one, to be taken away
    await sql.execute("ALTER TABLE away RENAME TO project_collections")
    assert [len(batch.events) for batch in await drained_with(doubtful, engine)] == [1, 0]


async def test_while_connections_are_lost_nobody_is_set_aside_for_the_marks_of_others(
    doubtful: Caution, engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers whose sessions are all ended mark the same events, and take their marks away a moment later."""
    await set_collection(engine, "c1")
    await sql.execute("UPDATE outbox_events SET attempts = 3")
    monkeypatch.setattr("worker.relay.caution.CALM_SECONDS", HANG_SECONDS)
    doubtful.note_failure(asyncpg.ConnectionDoesNotExistError(), [])
    assert (await doubtful.run_once(engine, ALL_LANES)).events == []
    await sql.execute("UPDATE outbox_events SET attempts = 0")
    assert [len(batch.events) for batch in await drained_with(doubtful, engine)] == [1, 0]
    assert await drift(sql) == []


async def test_a_lane_whose_marked_event_another_worker_has_in_hand_is_not_taken_for_empty(
    doubtful: Caution, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    """Or two workers take each other's caution away, and the event crashes the server again and again."""
    await set_collection(engine, "c1")
    await sql.execute("UPDATE outbox_events SET attempts = 1")
    async with sql.transaction():
        await sql.execute("SELECT FROM outbox_events FOR UPDATE")
        assert (await doubtful.run_once(engine, ALL_LANES)).events == []
        assert await doubtful.is_due(ALL_LANES)
    assert [len(batch.events) for batch in await drained_with(doubtful, engine)] == [1, 0]


async def test_while_one_lane_s_batch_is_in_hand_no_other_lane_s_events_are_marked(
    doubtful: Caution, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    point = "guard: claimed, before the guard"
    await freezing.install(sql)
    await set_collection(engine, "live")
    await set_collection(engine, "bulk", source=Source.BACKFILL)
    async with freezing.frozen(sql, point):
        live = asyncio.create_task(doubtful.run_once(engine, LIVE_LANE))
        await freezing.arrived(sql, point)
        bulk = asyncio.create_task(doubtful.run_once(engine, BULK_LANES))
        await asyncio.sleep(0.2)
        marks = dict(await sql.fetch("SELECT aggregate_id, attempts FROM outbox_events"))
    await asyncio.gather(live, bulk)
    assert marks == {"live": 1, "bulk": 0}


@pytest.fixture
def own_server(cluster: Path, tmp_path: Path) -> Iterator[Postgres]:
    copytree(cluster / "postgres", tmp_path / "postgres")
    with Postgres(tmp_path / "postgres", settings={"fsync": "off"}) as server:
        yield server


@pytest.mark.wide
async def test_an_event_that_crashes_the_server_is_found_by_the_worker_that_survives(
    own_server: Postgres, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each session that comes to write the row is killed, as a fault of PostgreSQL's own would kill it."""
    url = own_server.url_of(MIGRATED)
    settings = Settings(database_url=SecretStr(url), redis_url=settings.redis_url)
    engine = create_engine(settings, application_name="test", pool_size=5, statement_timeout_seconds=30)
    sql = await asyncpg.connect(url)
    await seed(sql)
    for number in range(9):
        await set_collection(engine, LETHAL if number == 4 else f"c{number}")
    await sql.execute("""
        CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.collection_id = 'lethal' THEN PERFORM pg_sleep(60); END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER linger BEFORE INSERT ON project_collections FOR EACH ROW EXECUTE FUNCTION linger();
    """)
    await sql.close()
    monkeypatch.setattr("worker.drainer.LAST_RETRY_SECONDS", 0.1)
    drainer = Drainer(engine)
    crashed: set[int] = set()
    with capture_logs() as lines:
        async with asyncio.timeout(HANG_SECONDS):
            while not any(line["event"] == "event_settled" and line["outcome"] == "dead" for line in lines):
                drainer.wake_live("sweep")
                crashed |= await kill_who_lingers(url)
                await asyncio.sleep(0.02)
        await drainer.drain("sweep")
    assert len(crashed) <= LOST_CONNECTIONS + len(TOGETHER) + 2
    sql = await asyncpg.connect(url)
    letters = await sql.fetch("SELECT aggregate_id, attempts FROM outbox_dead_letters")
    assert [tuple(row) for row in letters] == [(LETHAL, len(TOGETHER))]
    assert await drift(sql) == [LETHAL]
    await sql.close()
    await engine.dispose()


async def kill_who_lingers(url: str) -> set[int]:
    """Kill the sessions that have the event in hand and return their process ids."""
    try:
        sql = await asyncpg.connect(url, timeout=HANG_SECONDS)
        try:
            lingering = {row["pid"] for row in await sql.fetch(LINGERING)}
        finally:
            sql.terminate()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        return set()  # it recovers from the last one
    for pid in lingering:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSEGV)
    return lingering
