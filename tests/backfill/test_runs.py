"""Starting, pausing, resuming, cancelling, taking over: who may, and what it does."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.backfill_runs import (
    BackfillOptions,
    BackfillRun,
    NoUnfinishedRunError,
    RunDrivenError,
    RunUnfinishedError,
    cancel,
    latest,
    pause,
    resume,
    start,
)
from tests.backfill.driving import (
    RATE,
    ROWS,
    backfilled,
    being_driven,
    chunk_of,
    current,
    driven,
    never_overdue,
    started,
    take,
    until_row,
    until_waiting,
)
from tests.backfill.rows import enqueued, insert_many
from tests.draining import drain
from tests.processes import HANG_SECONDS
from worker import settled
from worker.backfill.custody import take_up
from worker.backfill.proof import wait_until_applied
from worker.custody import RunLostError

SILENT = "UPDATE backfill_runs SET heartbeat_at = clock_timestamp() - interval '3 seconds'"
# However slow we are, none of these seems silent meanwhile.
ALIVE = "UPDATE backfill_runs SET heartbeat_at = clock_timestamp() + interval '1 hour'"
OTHER_PROCESS = f"{ALIVE}, driver = 'elsewhere:1', driver_token = gen_random_uuid()"


async def change(
    engine: AsyncEngine, how: Callable[[AsyncConnection], Awaitable[BackfillRun]]
) -> BackfillRun:
    async with engine.begin() as connection:
        return await how(connection)


async def resume_here(connection: AsyncConnection) -> BackfillRun:
    return await resume(connection, in_worker=False)


async def test_there_is_no_latest_run_before_the_first(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert await latest(connection) is None


async def test_a_new_run_is_planned_and_waits_for_its_driver(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 10)
    options = BackfillOptions(project_id="p1", rate=7, max_pending=8, in_worker=True)
    run = await started(engine, options)
    assert (await current(engine)).id == run.id
    assert (run.status, run.planned, run.end_key) == ("running", 3, "c-0000009")
    assert (run.project_id, run.rate, run.max_pending, run.in_worker) == ("p1", 7, 8, True)
    assert (run.is_driven, run.driver, run.cursor_key) == (False, None, None)


@pytest.mark.parametrize("status", ["running", "paused"])
async def test_an_unfinished_run_is_in_the_way_of_another(
    status: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    first = await started(engine)
    await sql.execute("UPDATE backfill_runs SET status = $1", status)
    with pytest.raises(
        RunUnfinishedError, match=f"Backfill {first.id} is not finished: it is {status}"
    ) as caught:
        await started(engine)
    assert caught.value.run.id == first.id


async def test_of_two_starters_at_once_exactly_one_wins(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await insert_many(sql, "c", 3)
    results = await asyncio.gather(*(started(engine) for _ in range(8)), return_exceptions=True)
    won = [result for result in results if isinstance(result, BackfillRun)]
    lost = [result for result in results if isinstance(result, RunUnfinishedError)]
    assert (len(won), len(lost)) == (1, 7)
    assert {error.run.id for error in lost} == {won[0].id}


async def test_a_starter_that_waited_for_another_s_commit_sees_it_in_the_way(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    async with engine.connect() as connection:
        transaction = await connection.begin()
        first = await start(connection, BackfillOptions())
        second = asyncio.create_task(started(engine))
        await until_waiting(sql)
        await transaction.commit()
    with pytest.raises(RunUnfinishedError) as caught:
        await second
    assert caught.value.run.id == first.id


async def test_a_finished_run_makes_room_for_the_next(engine: AsyncEngine) -> None:
    first = await backfilled(engine)
    second = await backfilled(engine)
    assert second.id > first.id


@pytest.mark.parametrize("how", [pause, cancel, resume_here])
async def test_without_an_unfinished_run_nothing_can_be_changed(
    how: Callable[[AsyncConnection], Awaitable[BackfillRun]], engine: AsyncEngine
) -> None:
    with pytest.raises(NoUnfinishedRunError, match="none has run yet"):
        await change(engine, how)
    run = await backfilled(engine)
    with pytest.raises(NoUnfinishedRunError, match=f"the last one, {run.id}, is finished"):
        await change(engine, how)


async def test_a_paused_run_stops_after_its_chunk_and_goes_on_where_it_stopped(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", ROWS)
    async with being_driven(engine, BackfillOptions(rate=RATE)) as driving:
        await until_row(sql, "processed > 0")
        paused = await change(engine, pause)
        stopped = await asyncio.wait_for(driving, HANG_SECONDS)
    assert (stopped.status, stopped.processed) == ("paused", paused.processed)
    assert (await change(engine, pause)).status == "paused"

    resumed = await change(engine, resume_here)
    assert (resumed.status, resumed.processed, resumed.is_driven) == ("running", paused.processed, False)
    await sql.execute("UPDATE backfill_runs SET rate = NULL")
    finished = await driven(engine, resumed.id)
    assert (finished.status, finished.processed, finished.enqueued) == ("finished", ROWS, ROWS)
    assert set((await enqueued(sql)).values()) == {1}


async def test_a_cancelled_run_is_over(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await insert_many(sql, "c", ROWS)
    async with being_driven(engine, BackfillOptions(rate=RATE)) as driving:
        await until_row(sql, "processed > 0")
        cancelled = await change(engine, cancel)
        stopped = await asyncio.wait_for(driving, HANG_SECONDS)
    assert stopped.processed == cancelled.processed < ROWS
    assert cancelled.finished_at is not None
    with pytest.raises(NoUnfinishedRunError):
        await change(engine, resume_here)
    assert (await backfilled(engine)).enqueued == ROWS - cancelled.enqueued


async def test_a_run_that_is_driven_cannot_be_resumed(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await insert_many(sql, "c", ROWS)
    await never_overdue(sql)
    async with being_driven(engine, BackfillOptions(rate=RATE)):
        await until_row(sql, "processed > 0")
        with pytest.raises(RunDrivenError, match="is being driven by "):
            await change(engine, resume_here)


async def test_an_interrupted_run_is_given_back_at_once(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await insert_many(sql, "c", ROWS)
    async with being_driven(engine, BackfillOptions(rate=RATE)):
        await until_row(sql, "processed > 0")
    left = await current(engine)
    assert (left.status, left.is_driven, left.has_driver) == ("running", False, False)
    assert (await change(engine, resume_here)).processed == left.processed


@pytest.mark.parametrize("who", ["another driver", "nobody any more", "a pause", "a cancellation"])
async def test_whoever_lost_the_run_changes_nothing_any_more(
    who: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 10)
    run = await take(engine, await started(engine))
    changes = {
        "another driver": OTHER_PROCESS,
        "nobody any more": "UPDATE backfill_runs SET driver_token = NULL",
        "a pause": "UPDATE backfill_runs SET status = 'paused'",
        "a cancellation": "UPDATE backfill_runs SET status = 'cancelled'",
    }
    await sql.execute(changes[who])
    with pytest.raises(RunLostError):
        await chunk_of(engine, run)
    assert await enqueued(sql) == {}
    assert (await current(engine)).processed == 0


async def test_a_driver_that_was_taken_over_stops(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await insert_many(sql, "c", ROWS)
    async with being_driven(engine, BackfillOptions(rate=RATE)) as driving:
        await until_row(sql, "processed > 0")
        await sql.execute(OTHER_PROCESS)
        taken = await current(engine)
        assert (await asyncio.wait_for(driving, HANG_SECONDS)).processed == taken.processed
    kept = await current(engine)
    assert (kept.driver, kept.has_driver) == ("elsewhere:1", True)  # what the loser lets go is not its own


async def test_nobody_drives_a_run_that_another_process_drives(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 4)
    run = await started(engine)
    await sql.execute(OTHER_PROCESS)
    untouched = await driven(engine, run.id)
    assert (untouched.status, untouched.driver, untouched.processed) == ("running", "elsewhere:1", 0)


async def test_a_driver_that_is_slow_but_alive_keeps_its_run(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    run = await take(engine, await started(engine, BackfillOptions(in_worker=True)))
    await sql.execute(SILENT)
    async with engine.begin() as slow_chunk:
        await slow_chunk.exec_driver_sql("SELECT FROM backfill_runs FOR UPDATE")
        assert await take_up(engine) is None
        resuming = asyncio.create_task(change(engine, resume_here))
        await until_waiting(sql)
        await slow_chunk.exec_driver_sql(ALIVE)
    with pytest.raises(RunDrivenError):
        await resuming
    assert (await current(engine)).id == run.id


async def taken_up(engine: AsyncEngine) -> int | None:
    custody = await take_up(engine)
    return None if custody is None else custody.run.id


async def test_workers_take_up_only_what_was_left_to_them_and_has_no_driver(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    assert await take_up(engine) is None
    run = await started(engine)
    assert await take_up(engine) is None
    await sql.execute("UPDATE backfill_runs SET in_worker = true")
    asked_at = await sql.fetchval("SELECT clock_timestamp()")
    assert await taken_up(engine) == run.id
    assert await sql.fetchval("SELECT heartbeat_at FROM backfill_runs") > asked_at
    await sql.execute(ALIVE)
    assert await take_up(engine) is None
    await sql.execute(SILENT)
    assert await taken_up(engine) == run.id
    await sql.execute("UPDATE backfill_runs SET driver_token = NULL, status = 'paused'")
    assert await take_up(engine) is None


async def test_of_many_workers_one_takes_the_run_up_and_drives_it(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 4)
    await never_overdue(sql)
    run = await started(engine, BackfillOptions(in_worker=True))
    taken = await asyncio.gather(*(take_up(engine) for _ in range(6)))
    (custody,) = [custody for custody in taken if custody is not None]
    assert (await driven(engine, run.id)).enqueued == 0  # it is not ours, although the name is
    assert (await driven(engine, run.id, custody=custody)).enqueued == 4


async def test_waiting_until_applied_ends_with_the_last_of_the_run_s_events(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = asyncio.Semaphore(0)

    async def rest(_: asyncio.Event, seconds: float) -> None:
        looked.release()
        await asyncio.sleep(seconds / 20)

    monkeypatch.setattr(settled, "rest", rest)
    await insert_many(sql, "c", 4)
    run = await backfilled(engine)
    waiting = asyncio.create_task(wait_until_applied(engine, run, interrupted=asyncio.Event()))
    for _ in range(3):
        await asyncio.wait_for(looked.acquire(), HANG_SECONDS)
    assert not waiting.done()
    await drain(engine)
    await sql.execute(
        "INSERT INTO outbox_events (aggregate_id, event_type, source, payload)"
        " VALUES ('later', 'collection.updated', 'backfill', '{}')"
    )
    assert await asyncio.wait_for(waiting, HANG_SECONDS) is True


async def test_waiting_says_when_nothing_is_settled_and_can_be_interrupted(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.settled.STALL_SECONDS", 0.1)
    await insert_many(sql, "c", 4)
    run, interrupted, said = await backfilled(engine), asyncio.Event(), list[int]()

    def on_stall(pending: int) -> None:
        said.append(pending)
        interrupted.set()

    assert await wait_until_applied(engine, run, interrupted=interrupted, on_stall=on_stall) is False
    assert said == [4]
