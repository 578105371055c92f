"""However far the worker lags behind, no comparison takes that for a mismatch; and faults are found."""

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.phase.comparison import Mismatch
from shared.phase.phases import COMPARED, Phase
from shared.postgres.database import driver_connection
from tests.draining import drain
from tests.processes import HANG_SECONDS
from tests.shadow.situations import FAULTS, Scene, turn
from tests.shadow.storm import Storm, compared

COMPARISONS = 300
LONG_SECONDS = 1200
LONG = [pytest.mark.long, pytest.mark.timeout(LONG_SECONDS + HANG_SECONDS)]


@pytest.mark.parametrize("phase", COMPARED)
@pytest.mark.parametrize(
    ("comparisons", "seconds"),
    [(COMPARISONS, HANG_SECONDS), pytest.param(20_000, LONG_SECONDS, marks=LONG)],
)
async def test_storms_with_a_slow_worker_show_no_mismatch_and_planted_faults_are_found(
    comparisons: int, seconds: int, phase: Phase, scene: Scene, engine: AsyncEngine
) -> None:
    await turn(scene.sql, phase)
    storm = Storm(engine, comparisons)
    async with asyncio.timeout(seconds):
        await storm.rage()
    assert set(storm.outcomes) <= {"matched", "pending"}
    assert storm.outcomes["pending"] > comparisons / 2  # the storm reached what it is to test
    await drain(engine)
    async with driver_connection(engine) as connection:
        assert (await compared(connection)).outcome == "matched"
        for collection_id, fault in zip("abc", FAULTS.values(), strict=True):
            await scene.sql.execute(fault, collection_id)
        assert (await compared(connection)).mismatches == [
            Mismatch(collection_id, kind) for collection_id, kind in zip("abc", FAULTS, strict=True)
        ]
