"""The race harness with writers among the storms that append nothing, and nobody who repairs."""

import itertools
import random
from collections import Counter

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tests.capture.conftest import Capture
from tests.race.storm import CHANGE, LOCK, storm, write
from tests.race.test_race import PASSES_TO_CONVICT
from tests.race.test_race import connections as connections  # noqa: PLC0414 - a fixture

PASSES = 4
LONG_PASSES = 100
PAST = 0.5  # of the writes go past the outbox
CAPTURED = "SELECT count(*) FROM captured_writes"


async def write_now_and_then_past_the_outbox(
    connection: AsyncConnection, collection_id: str, description: str
) -> None:
    """Write as the API does, or as an operator: in one statement or after a look, in a savepoint or not."""
    if random.random() > PAST:  # noqa: S311 - chance, not a secret
        await write(connection, collection_id, description)
        return
    values = {"id": collection_id, "description": description, "is_active": random.random() < 0.7}  # noqa: S311
    if random.random() < 0.5:  # noqa: S311
        await connection.execute(LOCK, {"id": collection_id})
    if random.random() < 0.3:  # noqa: S311
        async with connection.begin_nested():
            await connection.execute(CHANGE, values)
    else:
        await connection.execute(CHANGE, values)


@pytest.mark.parametrize(
    "passes", [PASSES, pytest.param(LONG_PASSES, marks=[pytest.mark.long, pytest.mark.timeout(1200)])]
)
async def test_storms_with_writers_past_the_outbox_leave_no_drift(
    passes: int,
    engine: AsyncEngine,
    sql: asyncpg.Connection,
    connections: list[asyncpg.Connection],
    capture: Capture,
) -> None:
    await capture("append")
    outcomes: Counter[str] = Counter()
    numbers = itertools.count()
    while (number := next(numbers)) < passes:
        verdict = await storm(engine, connections, number, write_now_and_then_past_the_outbox)
        assert verdict.clean, (number, verdict)
        outcomes += verdict.outcomes
    assert outcomes["retried"] == 0  # the capture takes no lock that a writer does not hold
    assert await sql.fetchval(CAPTURED) > passes * 20


async def test_without_it_the_same_storms_drift(
    engine: AsyncEngine, connections: list[asyncpg.Connection]
) -> None:
    for number in range(PASSES_TO_CONVICT):
        verdict = await storm(engine, connections, number, write_now_and_then_past_the_outbox)
        if verdict.drift:
            return
    pytest.fail("writers that append nothing left no drift")
