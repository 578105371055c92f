import asyncio
import platform
import signal
from collections import Counter

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.backfill.driving import (
    COMMAND,
    chunk_of,
    current,
    never_overdue,
    started,
    take,
    until_gone,
    until_row,
    until_waiting,
)
from tests.backfill.rows import enqueued, fix_chunk_size, home_drift, insert_many, insert_mixed_rows
from tests.draining import drain
from tests.drift import drift
from tests.processes import HANG_SECONDS, Running, running
from tests.race import freezing
from worker.backfill import takeover
from worker.backfill.takeover import resume_when_left

BACKFILL = ["-m", "worker.backfill"]
POINTS = [*freezing.BACKFILL_POINTS, *freezing.BACKFILL_AT_COMMIT]
RUN_ROW_LOCKED = "run row locked, nothing read"
AT_COMMIT = "commit: of a chunk"
COMMITTED = "chunk committed"

SILENT_FOR_LONG = "UPDATE backfill_runs SET heartbeat_at = heartbeat_at - interval '3 seconds'"
SILENT_FOR_A_WHILE = "UPDATE backfill_runs SET heartbeat_at = heartbeat_at - interval '2 seconds'"
SETTLE = "DELETE FROM outbox_events WHERE source = 'backfill' RETURNING aggregate_id"


async def kill_at(point: str, sql: asyncpg.Connection, env: dict[str, str], command: list[str]) -> None:
    """Start the command and kill it when it comes to this point for the first time."""
    if point in POINTS:
        async with freezing.frozen(sql, point):
            with running(command, env) as process:
                await freezing.arrived(sql, point)
                process.kill()
    elif point == RUN_ROW_LOCKED:
        async with sql.transaction():
            await sql.execute("LOCK TABLE project_collections IN ACCESS EXCLUSIVE MODE")
            with running(command, env) as process:
                await until_waiting(sql, COMMAND)
                process.kill()
    else:
        await sql.execute("UPDATE backfill_runs SET max_pending = 8")  # there it waits
        with running(command, env) as process:
            await until_row(sql, "throttled_by IS NOT NULL")
            process.kill()
        await sql.execute("UPDATE backfill_runs SET max_pending = 1000")
    await until_gone(sql)


async def resumed(env: dict[str, str]) -> Running:
    with running([*BACKFILL, "--resume"], env) as process:
        code = await process.exit_code()
    assert code == 0, process.output
    return process


@pytest.mark.parametrize("point", [*POINTS, RUN_ROW_LOCKED, COMMITTED])
async def test_a_backfill_killed_at_this_point_is_resumed_exactly(
    point: str, engine: AsyncEngine, sql: asyncpg.Connection, env: dict[str, str]
) -> None:
    await insert_many(sql, "c", 20)
    await fix_chunk_size(sql, 4)
    await freezing.install_for_backfill(sql)
    run = await take(engine, await started(engine))
    await chunk_of(engine, run)  # so that there is a cursor to go on from
    await sql.execute(SILENT_FOR_LONG)

    await kill_at(point, sql, env, [*BACKFILL, "--resume"])
    killed = await current(engine)
    assert killed.status == "running", "it was over before it was killed"
    assert killed.enqueued == len(await enqueued(sql))
    # A server that was told to commit may do so although nobody is there to hear of it.
    assert killed.processed in {COMMITTED: [8], AT_COMMIT: [4, 8]}.get(point, [4])

    await sql.execute("DELETE FROM collections WHERE collection_id IN ('c-0000004', 'c-0000006')")
    await sql.execute("UPDATE collections SET is_active = false WHERE collection_id = 'c-0000019'")
    await fix_chunk_size(sql, 3)
    await sql.execute(SILENT_FOR_LONG)
    await resumed(env)

    finished = await current(engine)
    assert (finished.id, finished.status) == (run.id, "finished")
    assert finished.processed == finished.enqueued + finished.skipped
    counts = await enqueued(sql)
    kept = {f"c-{number:07}" for number in range(1, 21)} - {"c-0000004", "c-0000006", "c-0000019"}
    assert kept <= set(counts)
    assert set(counts.values()) == {1}
    assert finished.enqueued == len(counts)
    await drain(engine)
    assert await drift(sql) == []


async def test_a_killed_run_is_taken_over_once_its_driver_was_silent_for_three_seconds(
    engine: AsyncEngine, sql: asyncpg.Connection, env: dict[str, str]
) -> None:
    await insert_mixed_rows(sql)
    await fix_chunk_size(sql, 2)
    await freezing.install_for_backfill(sql)
    await kill_at("backfill: cursor moved", sql, env, BACKFILL)
    await sql.execute(SILENT_FOR_A_WHILE)
    heard_at = await sql.fetchval("SELECT heartbeat_at FROM backfill_runs")
    resumption = await resumed(env)
    finished_at = await sql.fetchval("SELECT finished_at FROM backfill_runs")
    assert (finished_at - heard_at).total_seconds() >= 3
    assert resumption.logged("backfill_started")[0]["processed"] == 0
    await drain(engine)
    assert await home_drift(sql) == []


async def test_the_first_look_that_finds_it_silent_for_three_seconds_takes_a_run_over(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, interrupted = await take(engine, await started(engine)), asyncio.Event()
    await sql.execute("UPDATE backfill_runs SET heartbeat_at = clock_timestamp() + interval '1 hour'")
    looks = 0

    async def rest(_: asyncio.Event, seconds: float) -> None:
        nonlocal looks
        assert seconds <= 0.25
        looks += 1
        if looks == 5:
            await sql.execute("UPDATE backfill_runs SET heartbeat_at = clock_timestamp()")
            await sql.execute(SILENT_FOR_LONG)

    monkeypatch.setattr(takeover, "rest", rest)
    taken = await resume_when_left(engine, in_worker=False, interrupted=interrupted)
    assert (taken.id, taken.has_driver, looks) == (run.id, False, 5)


async def test_a_driver_that_was_frozen_and_replaced_does_no_more_once_it_thaws(
    sql: asyncpg.Connection, env: dict[str, str]
) -> None:
    await insert_many(sql, "c", 24)
    with running([*BACKFILL, "--max-pending", "4"], env) as frozen:
        await until_row(sql, "throttled_by IS NOT NULL")
        frozen.signal(signal.SIGSTOP)
        await sql.execute(SILENT_FOR_LONG)
        await sql.execute("UPDATE backfill_runs SET max_pending = 8")
        await never_overdue(sql)
        with running([*BACKFILL, "--resume"], env) as successor:
            await until_row(sql, "processed = 8 AND throttled_by IS NOT NULL")
            frozen.signal(signal.SIGCONT)
            assert await frozen.exit_code() == 1
            assert frozen.logged("backfill_taken_over")
            assert f"run by a command on {platform.node()} (pid {successor.pid})" in frozen.output
            settled = await settled_until_it_ends(successor, sql)
    assert Counter(settled) == {f"c-{number:07}": 1 for number in range(1, 25)}


async def settled_until_it_ends(backfill: Running, sql: asyncpg.Connection) -> list[str]:
    """Settle what the run appends until it has ended with success; return the collections, in turn."""
    settled: list[str] = []
    async with asyncio.timeout(HANG_SECONDS):
        while backfill.process.poll() is None:
            settled += [row["aggregate_id"] for row in await sql.fetch(SETTLE)]
            await asyncio.sleep(0.02)
    assert await backfill.exit_code() == 0, backfill.output
    return settled + [row["aggregate_id"] for row in await sql.fetch(SETTLE)]
