import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared.backfill_runs import BackfillOptions
from shared.postgres.faults import INSUFFICIENT_PRIVILEGE, sqlstate
from tests.backfill.driving import being_driven, current, until_row
from tests.backfill.rows import enqueued, fix_chunk_size, insert_collection, insert_many
from tests.draining import drain
from tests.legacy_rows import set_collection
from tests.processes import HANG_SECONDS
from tests.security.as_role import engine_of
from tests.security.conftest import urls as urls  # noqa: PLC0414 - a fixture
from worker.backfill import pace, run
from worker.backfill.throttle import SIGNAL_TIMEOUT_SECONDS, Gate, Throttle

Deed = Callable[[], Awaitable[object]]
HEARTBEAT = "SELECT heartbeat_at FROM backfill_runs"
LATE = "UPDATE outbox_events SET created_at = created_at - interval '1 second'"


@contextlib.asynccontextmanager
async def another_connection(engine: AsyncEngine) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    )
    yield connection
    await connection.close()


async def throttles_and_clears(
    engine: AsyncEngine,
    sql: asyncpg.Connection,
    reason: str,
    clear: Deed,
    options: BackfillOptions | None = None,
) -> list[str]:
    """Run under this cause: it must say why it waits, show signs of life, and go on when it is gone."""
    with capture_logs() as lines:
        async with being_driven(engine, options):
            await until_row(sql, f"throttled_by LIKE '{reason}'")
            processed = (await current(engine)).processed
            await beats(sql)
            waiting = await current(engine)
            assert waiting.processed == processed
            assert waiting.throttled_by is not None
            await clear()
            await until_row(sql, f"processed > {processed}")
            async with asyncio.timeout(HANG_SECONDS):  # not its row: it may wait again by then
                while not any(line["event"] == "backfill_unthrottled" for line in lines):
                    await asyncio.sleep(0.01)
    throttled = [line for line in lines if line["event"] == "backfill_throttled"]
    return [line["cause"] for line in throttled]


async def beats(sql: asyncpg.Connection) -> None:
    """Wait for two signs of life."""
    beat = await sql.fetchval(HEARTBEAT)
    async with asyncio.timeout(HANG_SECONDS):
        for _ in range(2):
            while (now := await sql.fetchval(HEARTBEAT)) == beat:
                await asyncio.sleep(0.01)
            beat = now


def test_whatever_a_run_waits_for_it_looks_again_and_shows_a_sign_of_life_within_a_second() -> None:
    assert SIGNAL_TIMEOUT_SECONDS + run.RECHECK_SECONDS < 1
    assert max(run.LAST_RETRY_SECONDS, pace.LONGEST_REST_SECONDS) < 1


async def test_a_run_waits_while_too_many_of_its_events_are_pending(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 40)
    await fix_chunk_size(sql, 4)
    causes = await throttles_and_clears(
        engine,
        sql,
        "10 backfill events are pending, the most allowed",
        lambda: drain(engine),
        BackfillOptions(max_pending=10),
    )
    assert causes[0] == "max_pending"


async def test_no_more_events_are_ever_pending_than_allowed(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 100)
    async with being_driven(engine, BackfillOptions(max_pending=30)):
        for expected in (30, 60, 90):
            await until_row(sql, f"processed = {expected} AND throttled_by IS NOT NULL")
            assert len(await enqueued(sql)) == 30
            await drain(engine)
        await until_row(sql, "status = 'finished'")


async def test_a_run_waits_while_live_writes_are_late(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await insert_many(sql, "c", 4)
    await set_collection(engine, "live", "waits for a worker")
    await sql.execute(LATE)
    causes = await throttles_and_clears(
        engine, sql, "live lane is late: its oldest event has waited %", lambda: drain(engine)
    )
    assert causes == ["live_lag"]


async def test_a_run_waits_while_its_signals_cannot_be_read(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeout = "worker.backfill.throttle.SIGNAL_TIMEOUT_SECONDS"
    monkeypatch.setattr(timeout, 0.1)
    await insert_many(sql, "c", 4)
    locking = sql.transaction()
    await locking.start()
    await sql.execute("LOCK TABLE outbox_events IN ACCESS EXCLUSIVE MODE")

    async def clear() -> None:
        monkeypatch.setattr(timeout, HANG_SECONDS)
        await locking.rollback()

    async with another_connection(engine) as observer:
        causes = await throttles_and_clears(engine, observer, "live lane''s age unknown: TimeoutError", clear)
    assert causes == ["signal_unknown"]


async def test_a_run_waits_with_a_reason_for_rows_that_somebody_keeps_locked(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.backfill.find.LOCK_TIMEOUT", "100ms")
    await insert_many(sql, "c", 20)
    await fix_chunk_size(sql, 16)
    async with another_connection(engine) as observer:
        holding = sql.transaction()
        await holding.start()
        await sql.execute("SELECT FROM collections WHERE collection_id = 'c-0000003' FOR UPDATE")
        async with being_driven(engine):
            await until_row(observer, "throttled_by = 'rows are locked by another transaction: 55P03'")
            await until_row(observer, "processed = 2")  # up to that row it gets on, with smaller chunks
            await beats(observer)
            assert (await current(engine)).processed == 2
            await holding.rollback()
            await until_row(observer, "status = 'finished'")
    assert len(await enqueued(sql)) == 20
    assert set((await enqueued(sql)).values()) == {1}


async def test_a_pause_is_heeded_while_throttled(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await insert_many(sql, "c", 40)
    with capture_logs() as lines:
        async with being_driven(engine, BackfillOptions(max_pending=10)) as driving:
            await until_row(sql, "throttled_by IS NOT NULL")
            await sql.execute("UPDATE backfill_runs SET status = 'paused'")
            await asyncio.wait_for(driving, HANG_SECONDS)
    assert lines[-1]["event"] == "backfill_paused"


async def test_a_signal_that_is_refused_throttles(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await sql.execute("ALTER TABLE outbox_events RENAME COLUMN lane TO elsewhere")
    assert await Gate(engine, 10).look(1) == Throttle("signal_unknown", "live lane's age unknown: 42703")


@pytest.mark.parametrize("pending", [0, 3, 12])
async def test_what_may_still_be_appended_is_what_is_left_of_the_bound(
    pending: int, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_collection(sql, "c")
    await sql.execute(
        "INSERT INTO outbox_events (aggregate_id, event_type, source, payload)"
        " SELECT 'c', 'collection.updated', 'backfill', '{}' FROM generate_series(1, $1::integer)",
        pending,
    )
    allowed = await Gate(engine, 10).look(10)
    if pending < 10:
        assert allowed == 10 - pending
    else:
        assert allowed == Throttle("max_pending", "10 backfill events are pending, the most allowed")


async def test_pending_events_are_counted_only_when_too_few_are_known_to_be_allowed(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    counts: list[str] = []

    def remember(*arguments: object) -> None:
        if "count(*)" in str(arguments[2]):
            counts.append(str(arguments[2]))

    event.listen(engine.sync_engine, "before_cursor_execute", remember)
    await insert_many(sql, "c", 40)
    await fix_chunk_size(sql, 4)
    gate = Gate(engine, 10)
    assert [await gate.look(4) for _ in range(3)] == [10, 10, 10]
    assert len(counts) == 1
    gate.spend(7, None)
    assert await gate.look(3) == 3
    assert len(counts) == 1
    assert await gate.look(4) == 10
    assert len(counts) == 2
    gate.forget()
    assert await gate.look(1) == 10
    assert len(counts) == 3


async def test_a_signal_that_the_role_has_no_right_to_read_ends_the_run_and_is_no_throttle(
    urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    await sql.execute("REVOKE ALL ON outbox_events FROM collection_sync_operator")
    async with engine_of(urls["operator"]) as engine:
        with pytest.raises(DBAPIError) as refused:
            await Gate(engine, max_pending=10).look(1)
    assert sqlstate(refused.value) == INSUFFICIENT_PRIVILEGE
