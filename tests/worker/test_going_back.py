"""Workers count what going back would lose: where anything can be lost, one at a time, and not too often."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs
from structlog.typing import EventDict

from shared.phase import losses
from shared.phase.phases import COMPARED, Phase
from tests.processes import HANG_SECONDS
from tests.rollback.test_at_any_moment import until_it_waits
from tests.twins.replacing import replaced
from worker.going_back import LossUpkeep

TURN = "UPDATE migration_phase SET phase = $1"
KEPT = "SELECT count(*) FROM going_back_losses"
AGE = """
    UPDATE going_back_losses
    SET counted_at = clock_timestamp() - make_interval(secs => $1), took_seconds = $2
"""


async def tended(engine: AsyncEngine) -> list[EventDict]:
    """Let a worker that has just begun look once, and return what it logged."""
    with capture_logs() as lines:
        await LossUpkeep(engine).tend()
    return lines


@pytest.mark.parametrize("phase", Phase)
async def test_they_count_where_lists_are_compared_or_reads_are_moved(
    engine: AsyncEngine, sql: asyncpg.Connection, phase: Phase
) -> None:
    await sql.execute(TURN, phase)
    lines = await tended(engine)
    assert await sql.fetchval(KEPT) == len(lines) == (phase in COMPARED)
    for line in lines:
        assert (line["event"], line["further_links"]) == ("going_back_counted", 0)


async def test_where_the_phase_s_row_is_gone_nothing_is_counted(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute("DELETE FROM migration_phase")
    assert await tended(engine) == []


@pytest.mark.parametrize(
    ("age", "took", "is_due"),
    [(0, 0.1, False), (61, 0.1, True), (61, 60.0, False), (1501, 60.0, True)],
)
async def test_they_rest_for_a_minute_or_25_times_what_the_last_count_took(
    engine: AsyncEngine, sql: asyncpg.Connection, age: float, took: float, *, is_due: bool
) -> None:
    await sql.execute(TURN, Phase.READS_MOVED)
    assert len(await tended(engine)) == 1
    await sql.execute(AGE, age, took)
    assert len(await tended(engine)) == is_due


async def test_of_all_workers_one_counts_at_a_time(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = text(replaced(losses.SETTINGS.text, "'250ms'", f"'{HANG_SECONDS}s'"))
    monkeypatch.setattr(losses, "SETTINGS", patient)
    await sql.execute(TURN, Phase.SHADOW_READS)
    holder = await asyncpg.connect(database_url)
    await holder.execute("BEGIN; LOCK TABLE applied_versions IN ACCESS EXCLUSIVE MODE")
    with capture_logs() as lines:
        counting = asyncio.create_task(LossUpkeep(engine).tend())
        await until_it_waits(sql, "WITH unsettled")
        await asyncio.wait_for(LossUpkeep(engine).tend(), HANG_SECONDS)
        assert lines == []
        await holder.close()
        await counting
    assert len(lines) == 1
    assert await tended(engine) == []


async def test_one_that_failed_is_not_tried_again_at_once(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.going_back.LOOK_SECONDS", HANG_SECONDS)
    await sql.execute(TURN, Phase.SHADOW_READS)
    upkeep = LossUpkeep(engine)
    async with sql.transaction():
        await sql.execute("LOCK TABLE project_collections IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await asyncio.wait_for(upkeep.tend(), HANG_SECONDS)
    await upkeep.tend()
    assert await sql.fetchval(KEPT) == 0
    assert len(await tended(engine)) == 1
