import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.legacy_rows import seed
from tests.race import freezing
from tests.race.storm import storm, write
from tests.race.twins import TWINS, put_in_place

PASSES = 100
PASSES_TO_CONVICT = 100  # none needed more than a dozen
WEATHERS = 3


@pytest.fixture
async def connections(database_url: str) -> AsyncIterator[list[asyncpg.Connection]]:
    """One connection to judge with, and one for each weather."""
    async with contextlib.AsyncExitStack() as stack:
        opened = [await asyncpg.connect(database_url) for _ in range(1 + WEATHERS)]
        for connection in opened:
            stack.push_async_callback(connection.close)
        await seed(opened[0])
        await freezing.install(opened[0])
        yield opened


@pytest.mark.slow
async def test_storms_on_hot_keys_leave_no_drift_and_lose_nothing(
    engine: AsyncEngine, connections: list[asyncpg.Connection]
) -> None:
    outcomes: Counter[str] = Counter()
    for number in range(PASSES):
        verdict = await storm(engine, connections, number, write)
        assert verdict.clean, (number, verdict)
        outcomes += verdict.outcomes
    assert outcomes["retried"] == 0  # locks are taken in one order: no deadlock, nothing to repeat
    # The storms must have reached the mechanisms that they are to test.
    assert outcomes["stale"] > PASSES
    assert outcomes["conflated"] > PASSES


@pytest.mark.slow
@pytest.mark.parametrize("twin", TWINS)
async def test_storms_convict_the_twin(
    twin: str,
    engine: AsyncEngine,
    connections: list[asyncpg.Connection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong_write = put_in_place(twin, monkeypatch)
    for number in range(PASSES_TO_CONVICT):
        verdict = await storm(engine, connections, number, wrong_write)
        if not verdict.clean:
            return
    pytest.fail(f"{PASSES_TO_CONVICT} storms did not convict: {twin}")
