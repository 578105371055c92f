"""Exact while writes go on: no false alarm, where a twin that ignores the outbox raises them."""

import asyncio

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.audit_runs import AuditRun
from tests.audit.load import Load, load
from tests.audit.pairs import audited, found, put_legacy
from tests.draining import drain
from tests.drift import drift
from tests.race import freezing
from tests.twins.bulk import ignore_pending_events

PASSES = pytest.mark.parametrize("count", [30, pytest.param(100, marks=pytest.mark.long)])
SLICES = 4
POINTS = [point for point in freezing.NUMBERS if point.startswith(("target", "acknowledge", "commit"))]


async def passes(engine: AsyncEngine, state: Load, count: int) -> tuple[list[AuditRun], list[int]]:
    """Audit so often; return the runs, and how much was written during each."""
    runs, written = [], []
    for _ in range(count):
        before = state.written
        runs.append(await audited(engine, slices=SLICES))
        written.append(state.written - before)
    return runs, written


@PASSES
async def test_audits_among_writers_and_slow_relays_raise_no_alarm(
    count: int,
    engine: AsyncEngine,
    seeded: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
) -> None:
    await freezing.install(seeded)
    weather_connection = await asyncpg.connect(database_url)
    async with load(engine) as state:
        weather = asyncio.create_task(freezing.weather(weather_connection, POINTS, 1))
        runs, written = await passes(engine, state, count)
        assert [one for one in runs if one.found or one.planned != one.compared] == []
        assert {one.verdict for one in runs} <= {"in_sync", "pending"}
        assert all(one.chunks_done == SLICES and one.canary_found for one in runs)
        assert max(one.pending for one in runs) > 0
        assert max(one.compared for one in runs) > min(one.compared for one in runs)
        assert sum(rows > 0 for rows in written) > 0.9 * count, written  # or it was no load

        for number in range(3):
            await put_legacy(seeded, f"drift-{number}")
        for _ in range(5):
            assert (await audited(engine, slices=SLICES)).found == 3
            assert await found(seeded) == dict.fromkeys(["drift-0", "drift-1", "drift-2"], "missing")
        await seeded.execute("DELETE FROM collections WHERE collection_id LIKE 'drift-%'")

        weather.cancel()
        await asyncio.gather(weather, return_exceptions=True)
        await weather_connection.close()
        await state.stop_relays()
        await state.until_written(50)
        with monkeypatch.context() as twin:
            ignore_pending_events(twin)
            alarmed = await audited(engine, slices=SLICES)
        assert alarmed.found > 0, (
            "the audit that ignores the outbox raised no false alarm: the test has no teeth"
        )
        await state.stop_writers()

    stopped = await audited(engine, slices=SLICES)
    assert (stopped.verdict, stopped.found) == ("pending", 0)
    assert stopped.pending == len(await drift(seeded)) > 0
    await drain(engine)
    assert (await audited(engine, slices=SLICES)).verdict == "in_sync"
