import asyncio
import time
from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.backfill_runs import BackfillOptions, BackfillRun
from tests.backfill.driving import backfilled, being_driven, driven, started
from tests.backfill.rows import fix_chunk_size, insert_many
from tests.legacy_rows import set_collection
from worker.backfill.pace import POLITE_ROWS, REST_PER_CHUNK, Pace, next_chunk_size, rest

BEAT = timedelta(seconds=1.5)


@pytest.mark.parametrize(
    ("size", "seconds", "expected"),
    [
        (1_000, 0.1, 1_000),
        (1_000, 0.08, 1_250),
        (1_000, 0.001, 2_000),  # at most doubled
        (1_000, 0.0, 2_000),
        (1_000, 5.0, 500),  # at most halved
        (150, 5.0, 100),  # not below the least
        (8_000, 0.01, 10_000),  # not beyond the most
        (10_000, 0.2, 5_000),
        (4, 0.001, 8),  # whoever asked for less is brought up step by step
        (4, 5.0, 4),
        (1, 5.0, 1),
    ],
)
def test_a_chunk_s_size_follows_its_time_in_bounded_steps(size: int, seconds: float, expected: int) -> None:
    assert next_chunk_size(size, seconds) == expected


def test_a_pace_without_a_rate_never_waits() -> None:
    pace = Pace(None)
    pace.spend(1_000_000)
    assert (pace.rows, pace.wait_seconds) == (None, 0)


@pytest.mark.parametrize(("rate", "rows"), [(1, 1), (3, 1), (4, 1), (100, 25)])
def test_a_rate_comes_in_small_portions_with_waits_of_a_second_at_most(rate: int, rows: int) -> None:
    pace = Pace(rate)
    assert (pace.rows, pace.wait_seconds) == (rows, 0)
    pace.spend(rows)
    assert 0 < pace.wait_seconds <= 1
    assert pace.wait_seconds == pytest.approx(rows / rate, abs=0.05)


def test_while_others_append_chunks_are_small_and_a_rest_follows_each() -> None:
    pace = Pace(None)
    pace.see_others(0)
    pace.spend(1_000, 0.1)
    assert (pace.rows, pace.wait_seconds) == (None, 0)
    pace.see_others(1)
    pace.spend(100, 0.1)
    assert pace.rows == POLITE_ROWS
    assert pace.wait_seconds == pytest.approx(0.1 * REST_PER_CHUNK, abs=0.05)
    pace.spend(100, 60)
    assert pace.wait_seconds < 1


async def test_a_run_sees_that_users_write_by_the_ids_they_draw(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 8 * POLITE_ROWS)
    await fix_chunk_size(sql, 2 * POLITE_ROWS)
    run = await started(engine)
    rows: list[int] = []

    def write(now: BackfillRun) -> None:
        rows.append(now.processed - sum(rows))

    async def users() -> None:
        while len(rows) < 3:
            await set_collection(engine, "users")
            # No worker is here to settle it: once it is late, the run would wait for ever.
            await sql.execute("DELETE FROM outbox_events WHERE source = 'api'")

    await asyncio.gather(driven(engine, run.id, write), users())
    assert max(rows[:2]) == 2 * POLITE_ROWS  # nobody had been seen yet
    assert POLITE_ROWS in rows


async def test_a_run_keeps_to_its_rate(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await insert_many(sql, "c", 60)
    began = time.monotonic()
    await backfilled(engine, BackfillOptions(rate=80))
    assert 0.5 < time.monotonic() - began < 2


async def test_a_slow_run_shows_signs_of_life(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await insert_many(sql, "c", 9)
    async with being_driven(engine, BackfillOptions(rate=1)):
        for _ in range(3):
            await asyncio.sleep(0.4)
            assert await sql.fetchval("SELECT clock_timestamp() - heartbeat_at FROM backfill_runs") < BEAT


async def test_a_rest_ends_when_interrupted() -> None:
    interrupted = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, interrupted.set)
    began = time.monotonic()
    await rest(interrupted, 10)
    assert time.monotonic() - began < 1


async def test_chunks_grow_while_they_are_quick(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await insert_many(sql, "c", 5_000)
    run = await backfilled(engine)
    assert run.chunk_size > 1_000
