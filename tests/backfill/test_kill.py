import asyncio
import signal

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.backfill.driving import TOKEN, current, started, take, until_row
from tests.backfill.rows import enqueued, fix_chunk_size, home_drift, insert_many, insert_mixed_rows
from tests.drift import drift
from tests.processes import Running, running
from tests.race import freezing
from worker.backfill.chunk import run_chunk
from worker.relay import drain

BACKFILL = ["-m", "worker.backfill"]
POINTS = [*freezing.BACKFILL_POINTS, *freezing.BACKFILL_AT_COMMIT]
RUN_ROW_LOCKED = "run row locked, nothing read"
AT_COMMIT = "commit: of a chunk"
COMMITTED = "chunk committed"

SILENT_FOR_LONG = "UPDATE backfill_runs SET heartbeat_at = heartbeat_at - interval '3 seconds'"


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
                await until_blocked(sql)
                process.kill()
    else:
        await sql.execute("UPDATE backfill_runs SET rate = 16")  # a chunk each quarter of a second
        with running(command, env) as process:
            await until_row(sql, "processed > 4")
            process.kill()
        await sql.execute("UPDATE backfill_runs SET rate = NULL")


async def until_blocked(sql: asyncpg.Connection) -> None:
    async with asyncio.timeout(10):
        while not await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            pass


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
    await run_chunk(engine, run.id, TOKEN)  # so that there is a cursor to go on from
    await sql.execute(SILENT_FOR_LONG)

    await kill_at(point, sql, env, [*BACKFILL, "--resume"])
    killed = await current(engine)
    assert killed.status == "running", "it was over before it was killed"
    assert killed.enqueued == len(await enqueued(sql))
    # A server that was told to commit may do so although nobody is there to hear of it.
    assert killed.processed in {COMMITTED: [8, 12, 16, 20], AT_COMMIT: [4, 8]}.get(point, [4])

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
    killed_at = await sql.fetchval("SELECT clock_timestamp()")
    resumption = await resumed(env)
    seconds = (await sql.fetchval("SELECT clock_timestamp() - $1::timestamptz", killed_at)).total_seconds()
    assert seconds < 5
    assert resumption.logged("backfill_started")[0]["processed"] == 0
    await drain(engine)
    assert await home_drift(sql) == []


async def test_a_driver_that_was_frozen_and_replaced_does_no_more_once_it_thaws(
    sql: asyncpg.Connection, env: dict[str, str]
) -> None:
    await insert_many(sql, "c", 24)
    with running([*BACKFILL, "--rate", "16"], env) as frozen:
        await until_row(sql, "processed > 0")
        frozen.signal(signal.SIGSTOP)
        await sql.execute(SILENT_FOR_LONG)
        before = await sql.fetchval("SELECT processed FROM backfill_runs")
        with running([*BACKFILL, "--resume"], env) as successor:
            await until_row(sql, f"processed > {before}", seconds=15)
            driver = await sql.fetchval("SELECT driver FROM backfill_runs")
            frozen.signal(signal.SIGCONT)
            assert await frozen.exit_code() == 1
            assert frozen.logged("backfill_taken_over")
            assert f"is being driven by {driver}" in frozen.output
            assert await successor.exit_code() == 0
    assert await enqueued(sql) == {f"c-{number:07}": 1 for number in range(1, 25)}
