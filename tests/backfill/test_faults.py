"""What passes by itself is waited out, shown, and never counted twice."""

import asyncio
import contextlib
import tracemalloc
from typing import Any

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared.backfill_runs import BackfillRun
from shared.redis.client import open_redis
from shared.redis.doorbell import Doorbell
from shared.settings import Settings
from tests.backfill.driving import being_driven, current, driven, started, until_row
from tests.backfill.rows import enqueued, fix_chunk_size, insert_many
from tests.doorbell.place import nowhere
from tests.race import freezing
from worker.backfill.chunk import Chunk, run_chunk
from worker.backfill.run import drive
from worker.custody import Custody

CUT_CONNECTIONS = """
    SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
FAIL_ONCE = """
    CREATE SEQUENCE attempts;
    CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('attempts') < 3 THEN RAISE EXCEPTION 'again' USING ERRCODE = 'WHICH'; END IF;
            RETURN NULL;
        END $$;
    CREATE TRIGGER fail_once BEFORE INSERT ON outbox_events FOR EACH STATEMENT EXECUTE FUNCTION fail_once();
"""


async def test_connections_that_are_cut_again_and_again_cost_no_row_and_double_none(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.backfill.run.LAST_RETRY_SECONDS", 0.01)
    await insert_many(sql, "c", 100)
    await fix_chunk_size(sql, 10)
    await freezing.install_for_backfill(sql)
    before, after = "backfill: before the cursor moves", "backfill: cursor moved"
    async with contextlib.AsyncExitStack() as stack:
        async with freezing.frozen(sql, after):
            async with freezing.frozen(sql, before):
                await stack.enter_async_context(being_driven(engine))
                await cut_thrice(sql, before)
            await cut_thrice(sql, after)
        await until_row(sql, "status = 'finished'")
    assert len(await enqueued(sql)) == 100
    assert set((await enqueued(sql)).values()) == {1}
    assert (await current(engine)).enqueued == 100


async def cut_thrice(sql: asyncpg.Connection, point: str) -> None:
    for _ in range(3):
        await freezing.arrived(sql, point)
        await sql.execute(CUT_CONNECTIONS)


async def test_a_commit_whose_answer_is_lost_is_not_repeated(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run_chunk_unheard(custody: Custody[BackfillRun], *limits: Any) -> Chunk:  # noqa: ANN401 - whatever they are
        await run_chunk(custody, *limits)
        raise ConnectionResetError

    monkeypatch.setattr("worker.backfill.run.run_chunk", run_chunk_unheard)
    monkeypatch.setattr("worker.backfill.run.LAST_RETRY_SECONDS", 0.01)
    await insert_many(sql, "c", 10)
    await fix_chunk_size(sql, 4)
    run = await started(engine)
    with capture_logs() as lines:
        run = await driven(engine, run.id)
    assert (run.status, run.processed, run.enqueued) == ("finished", 10, 10)
    assert set((await enqueued(sql)).values()) == {1}
    assert lines[-1]["event"] == "backfill_finished"


@pytest.mark.parametrize("code", ["40P01", "40001", "53300"])
async def test_a_fault_that_passes_is_waited_out_and_shown(
    code: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 5)
    await sql.execute(FAIL_ONCE.replace("WHICH", code))
    run = await started(engine)
    reasons: list[str | None] = []
    with capture_logs() as lines:
        run = await driven(engine, run.id, lambda run: reasons.append(run.throttled_by))
    assert (run.status, run.enqueued) == ("finished", 5)
    assert f"a chunk failed: {code}" in reasons
    assert [line["cause"] for line in lines if line["event"] == "backfill_throttled"] == ["fault"]


async def test_a_fault_that_does_not_pass_ends_the_drive(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 5)
    await sql.execute(FAIL_ONCE.replace("WHICH", "22012"))
    run = await started(engine)
    with pytest.raises(DBAPIError, match="again"):
        await driven(engine, run.id)
    assert (await current(engine)).status == "running"
    assert await enqueued(sql) == {}


async def test_workers_are_rung_for_after_a_chunk_s_commit(
    engine: AsyncEngine, sql: asyncpg.Connection, settings: Settings
) -> None:
    committed: list[int] = []

    class CountingDoorbell(Doorbell):
        def press(self) -> None:
            committed.append(len(committed))

    await insert_many(sql, "c", 10)
    await fix_chunk_size(sql, 4)
    redis = open_redis(settings.redis_url.get_secret_value())
    doorbell = CountingDoorbell(redis, nowhere())
    for presses in (3, 0):  # a second run has nothing to ring for
        committed.clear()
        run = await started(engine)
        await drive(engine, run.id, interrupted=asyncio.Event(), doorbell=doorbell)
        assert len(committed) == presses
    await redis.aclose()


async def test_memory_does_not_grow_with_the_number_of_rows(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 12_000)
    await fix_chunk_size(sql, 500)
    held: list[int] = []
    peaks: list[int] = []

    def measure(_run: BackfillRun) -> None:
        size, peak = tracemalloc.get_traced_memory()
        held.append(size)
        peaks.append(peak)
        tracemalloc.reset_peak()

    run = await started(engine)
    tracemalloc.start()
    try:
        await driven(engine, run.id, measure)
    finally:
        tracemalloc.stop()
    assert len(held) == 25
    assert held[-1] - held[8] < 200_000
    assert max(peaks[16:]) < 1.3 * max(peaks[2:10])
