import asyncio
from types import SimpleNamespace

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.backfill_runs import BackfillOptions, BackfillRun
from tests.backfill.conftest import Clock
from tests.backfill.driving import backfilled, driven, started
from tests.backfill.rows import fix_chunk_size, insert_many
from tests.legacy_rows import set_collection
from tests.processes import HANG_SECONDS
from worker.backfill.pace import POLITE_ROWS, REST_PER_CHUNK, Pace, next_chunk_size
from worker.rest import rest


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
def test_a_rate_comes_in_small_portions_with_waits_of_a_second_at_most(
    rate: int, rows: int, clock: Clock
) -> None:
    del clock
    pace = Pace(rate)
    assert (pace.rows, pace.wait_seconds) == (rows, 0)
    pace.spend(rows)
    assert 0 < pace.wait_seconds <= 1
    assert pace.wait_seconds == pytest.approx(rows / rate)


def test_while_others_append_chunks_are_small_and_a_rest_follows_each(clock: Clock) -> None:
    pace = Pace(None)
    pace.see_others(0)
    pace.spend(1_000, 0.1)
    assert (pace.rows, pace.wait_seconds) == (None, 0)
    pace.see_others(1)
    pace.spend(100, 0.1)
    assert pace.rows == POLITE_ROWS
    assert pace.wait_seconds == pytest.approx(0.1 * REST_PER_CHUNK)
    pace.spend(100, 60)
    assert pace.wait_seconds < 1
    clock.now += 1.1
    assert pace.rows is None
    assert pace.wait_seconds == 0


def test_the_time_that_a_chunk_took_counts_for_its_rate(clock: Clock) -> None:
    pace = Pace(1_000)
    clock.now += 0.1
    pace.spend(250, 0.1)
    assert pace.wait_seconds == pytest.approx(0.15)
    clock.now += 0.15
    clock.now += 0.4
    pace.spend(250, 0.4)  # slower than the rate allows: nothing is waited for, nor made up for
    assert (pace.wait_seconds, pace.slowed_by) == (0, None)
    pace.spend(250)
    assert pace.wait_seconds == pytest.approx(0.25)


def test_the_brake_has_a_name(clock: Clock) -> None:
    pace = Pace(1_000)
    pace.spend(250, 0.01)
    assert pace.slowed_by == "its rate of 1,000 rows/s"
    assert pace.keep_to(None)
    assert not pace.keep_to(None)
    assert pace.wait_seconds == 0
    pace.spend(1_000, 0.01)
    assert pace.slowed_by is None
    pace.see_others(1)
    pace.spend(100, 0.01)
    assert pace.slowed_by == "other writes, which go first: 100 rows at a time, and a rest after them"
    clock.now += 1.1
    pace.spend(100, 0.01)
    assert pace.slowed_by is None


async def test_a_run_sees_that_users_write_by_the_ids_they_draw(
    engine: AsyncEngine, sql: asyncpg.Connection, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await insert_many(sql, "c", 8 * POLITE_ROWS)
    await fix_chunk_size(sql, 2 * POLITE_ROWS)
    run = await started(engine)
    rows: list[int] = []

    def write(now: BackfillRun) -> None:
        rows.append(now.processed - sum(rows))

    async def a_user_writes(interrupted: asyncio.Event, seconds: float) -> None:
        await clock.rest(interrupted, seconds)
        await set_collection(engine, "users")
        # No worker is here to settle it: once it is late, the run would wait for ever.
        await sql.execute("DELETE FROM outbox_events WHERE source = 'api'")

    monkeypatch.setattr("worker.backfill.run.rest", a_user_writes)
    await driven(engine, run.id, write)
    assert rows[:2] == [2 * POLITE_ROWS] * 2  # nobody had been seen yet
    assert rows[2:-1] == [POLITE_ROWS] * 4


async def test_a_run_keeps_to_its_rate(engine: AsyncEngine, sql: asyncpg.Connection, clock: Clock) -> None:
    await insert_many(sql, "c", 60)
    await backfilled(engine, BackfillOptions(rate=80))
    assert clock.now == pytest.approx(60 / 80)


async def test_a_slow_run_shows_signs_of_life(
    engine: AsyncEngine, sql: asyncpg.Connection, clock: Clock
) -> None:
    await insert_many(sql, "c", 9)
    run = await started(engine, BackfillOptions(rate=1))
    beats = [run.heartbeat_at]
    await driven(engine, run.id, lambda now: beats.append(now.heartbeat_at))
    assert len(set(beats)) == len(beats) == 11  # one with each row, and one with the end
    assert beats == sorted(beats)
    assert max(clock.rests) == pytest.approx(1)


async def test_a_rest_ends_when_interrupted() -> None:
    interrupted = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, interrupted.set)
    async with asyncio.timeout(HANG_SECONDS):
        await rest(interrupted, 10 * HANG_SECONDS)


async def test_a_rest_that_nobody_interrupts_ends_by_itself() -> None:
    await rest(asyncio.Event(), 0.01)


async def test_chunks_grow_while_they_are_quick(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.backfill.chunk.time", SimpleNamespace(perf_counter=lambda: 0.0))
    await insert_many(sql, "c", 5_000)
    run = await backfilled(engine)
    assert run.chunk_size > 1_000
