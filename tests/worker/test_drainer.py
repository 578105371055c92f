import asyncio
from collections import Counter
from functools import partial

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from structlog.testing import capture_logs

from tests.databases import Databases
from tests.legacy_rows import set_collection
from tests.race import freezing
from worker.drainer import Drainer
from worker.relay import run_once

AFTER_CLAIM = "guard: claimed, before the guard"


async def test_a_call_during_a_drain_makes_it_look_once_more(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    drainer = Drainer(engine)
    await freezing.install(sql)
    await set_collection(engine, "c1")
    async with freezing.frozen(sql, AFTER_CLAIM):
        first = asyncio.create_task(drainer.drain("doorbell"))
        await freezing.arrived(sql, AFTER_CLAIM)
        await drainer.drain("sweep")  # returns at once, although the first is frozen
        assert not first.done()
        await set_collection(engine, "c2")
    await first
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0


async def test_stop_lets_the_batch_in_hand_finish_and_begins_no_other(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.drainer.run_once", partial(run_once, batch_size=1))
    drainer = Drainer(engine)
    await freezing.install(sql)
    for number in range(3):
        await set_collection(engine, f"c{number}")
    async with freezing.frozen(sql, AFTER_CLAIM):
        draining = asyncio.create_task(drainer.drain("doorbell"))
        await freezing.arrived(sql, AFTER_CLAIM)
        stopping = asyncio.create_task(drainer.stop())
        await asyncio.sleep(0)
        assert not stopping.done()
    await asyncio.gather(draining, stopping)
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 2


async def test_a_batch_that_fails_is_reported_and_tried_again_by_the_next_wake_up(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    drainer = Drainer(engine)
    await set_collection(engine, "c1")
    await sql.execute("ALTER TABLE project_collections RENAME TO away")
    with capture_logs() as lines:
        await drainer.drain("sweep")
        await sql.execute("ALTER TABLE away RENAME TO project_collections")
        await drainer.drain("sweep")
    assert Counter(line["event"] for line in lines) == {
        "batch_failed": 1,
        "batch_settled": 1,
        "event_settled": 1,
    }
    failed = next(line for line in lines if line["event"] == "batch_failed")
    assert (failed["log_level"], failed["transient"], failed["sqlstate"]) == ("error", False, "42P01")


async def test_on_a_database_without_our_tables_the_log_says_what_to_run(
    databases: Databases,
) -> None:
    url = databases.create_empty("never_migrated")
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    with capture_logs() as lines:
        await Drainer(engine).drain("sweep")
    await engine.dispose()
    assert [line["hint"] for line in lines] == ["run `alembic upgrade head`"]
