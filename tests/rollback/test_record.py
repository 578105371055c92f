"""What a rollback leaves for those who look for a proof."""

import asyncio

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.audit_runs import latest_finished
from tests.draining import drain
from tests.legacy_rows import set_collection
from tests.rollback.situations import ignore, planned, rolled_back
from worker.rollback.run import roll_back
from worker.rollback.tally import Rollback
from worker.rollback.walk import RollbackInterruptedError

RECORDS = (
    "SELECT status, verdict, finished_at FROM audit_runs WHERE requested_by = 'rollback' ORDER BY finished_at"
)


async def test_a_rollback_voids_what_was_proved_from_its_beginning_on(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1")
    await drain(engine)
    await planned(engine)
    assert await sql.fetch(RECORDS) == []
    interrupted = asyncio.Event()

    def interrupt(_so_far: Rollback) -> None:
        interrupted.set()

    with pytest.raises(RollbackInterruptedError):
        await roll_back(engine, interrupted=interrupted, watch=interrupt)
    assert [tuple(row)[:2] for row in await sql.fetch(RECORDS)] == [("failed", "incomplete")]
    await roll_back(engine, interrupted=asyncio.Event(), watch=ignore)
    assert [tuple(row)[:2] for row in await sql.fetch(RECORDS)] == [("finished", "incomplete")]
    async with engine.connect() as connection:
        newest = await latest_finished(connection)
    assert newest is not None
    assert (newest.requested_by, newest.compared, newest.duration_seconds) == ("rollback", 0, 0.0)
    await rolled_back(engine)
    assert len(await sql.fetch(RECORDS)) == 2
