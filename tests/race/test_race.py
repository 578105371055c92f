import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.race import freezing
from tests.race.storm import Write, storm, write
from tests.twins.relay import guard_and_apply_in_one_statement
from tests.twins.writes import write_with_id_drawn_before_the_lock

PASSES = 5
PASSES_TO_CONVICT = 100  # none needed more than a dozen
WEATHERS = 3


@pytest.fixture
async def connections(database_url: str) -> AsyncIterator[list[asyncpg.Connection]]:
    """One connection to judge with, and one for each weather."""
    async with contextlib.AsyncExitStack() as stack:
        opened = [await asyncpg.connect(database_url) for _ in range(1 + WEATHERS)]
        for connection in opened:
            stack.push_async_callback(connection.close)
        await freezing.install(opened[0])
        yield opened


@pytest.mark.parametrize(
    "passes", [PASSES, pytest.param(PASSES_TO_CONVICT, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
async def test_storms_on_hot_keys_leave_no_drift_and_lose_nothing(
    passes: int, engine: AsyncEngine, connections: list[asyncpg.Connection]
) -> None:
    outcomes: Counter[str] = Counter()
    numbers = itertools.count()
    # The storms must have reached the mechanisms that they are to test.
    while (number := next(numbers)) < passes or min(outcomes["stale"], outcomes["conflated"]) <= passes:
        verdict = await storm(engine, connections, number, write)
        assert verdict.clean, (number, verdict)
        outcomes += verdict.outcomes
    assert outcomes["retried"] == 0  # locks are taken in one order: no deadlock, nothing to repeat


async def convicted(
    engine: AsyncEngine, connections: list[asyncpg.Connection], wrong_write: Write = write
) -> bool:
    for number in range(PASSES_TO_CONVICT):
        if not (await storm(engine, connections, number, wrong_write)).clean:
            return True
    return False


# That the storms can see anything. `make twins` convicts these and all the others without chance.


@pytest.mark.long
async def test_storms_convict_a_guard_that_applies_in_its_own_statement(
    engine: AsyncEngine, connections: list[asyncpg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.relay.settle.apply", guard_and_apply_in_one_statement)
    assert await convicted(engine, connections)


@pytest.mark.long
async def test_storms_convict_writers_that_draw_the_id_before_the_lock(
    engine: AsyncEngine, connections: list[asyncpg.Connection]
) -> None:
    assert await convicted(engine, connections, write_with_id_drawn_before_the_lock)
