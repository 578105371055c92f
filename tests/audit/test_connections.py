"""Several connections: slices are compared at the same time, and every promise of an audit stays."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.audit_runs import latest_finished
from tests.audit.pairs import audited, found, put_synced
from tests.processes import HANG_SECONDS
from worker.audit import comparison, findings, run
from worker.audit.comparison import Slice, Tally

Compare = Callable[[asyncpg.Connection, Slice], Awaitable[Tally]]

SLEEP = "SET LOCAL statement_timeout = 0; SELECT pg_sleep(600)"


def compare_when_two_have_met(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Let no slice be compared before another is as far; return the list of session and slice of each."""
    right, met = comparison.compare, asyncio.Barrier(2)
    compared: list[tuple[int, int]] = []

    async def meeting(connection: asyncpg.Connection, scope: Slice) -> Tally:
        async with asyncio.timeout(HANG_SECONDS):
            await met.wait()
        compared.append((connection.get_server_pid(), scope.slice))
        return await right(connection, scope)

    monkeypatch.setattr(run, "compare", meeting)
    return compared


async def test_each_connection_compares_a_slice_of_its_own_at_the_same_time(
    engine: AsyncEngine, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_synced(seeded, 40)
    compared = compare_when_two_have_met(monkeypatch)

    one = await audited(engine, slices=8, connections=2)

    assert sorted(number for _, number in compared) == list(range(8))
    assert len({session for session, _ in compared[:2]}) == 2
    assert (one.verdict, one.compared, one.chunks_done) == ("in_sync", 40, 8)


async def test_there_are_as_many_slices_as_connections(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_synced(seeded, 40)

    one = await audited(engine, connections=3)

    assert (one.verdict, one.compared, one.chunks_planned, one.chunks_done) == ("in_sync", 40, 4, 4)


async def test_slices_compared_at_once_list_no_more_findings_than_one_after_the_other(
    engine: AsyncEngine, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_synced(seeded, 200)
    await seeded.execute("DELETE FROM project_collections")
    monkeypatch.setattr(run, "MOST_LISTED", 50)
    compare_when_two_have_met(monkeypatch)
    right = findings.record

    async def slow(connection: asyncpg.Connection, run_id: int, scope: Slice, most: int | None) -> int:
        await asyncio.sleep(0.3)
        return await right(connection, run_id, scope, most)

    monkeypatch.setattr(run, "record", slow)

    one = await audited(engine, slices=2, connections=2)

    assert (one.verdict, one.missing) == ("drift", 180)
    assert len(await found(seeded)) == 50


async def test_a_slice_that_dies_ends_those_beside_it_and_the_pass(
    engine: AsyncEngine, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_synced(seeded, 40)

    async def dying(connection: asyncpg.Connection, scope: Slice) -> Tally:
        await connection.execute("SELECT 1 / 0" if scope.slice == 1 else SLEEP, timeout=600)
        raise AssertionError

    monkeypatch.setattr(run, "compare", dying)

    async with asyncio.timeout(HANG_SECONDS):
        with pytest.raises(asyncpg.DivisionByZeroError):
            await audited(engine, slices=4, connections=2)

    row = await seeded.fetchrow("SELECT * FROM audit_runs")
    assert (row["status"], row["verdict"], row["chunks_done"]) == ("failed", "incomplete", 0)
    async with engine.connect() as connection:
        assert await latest_finished(connection) is None
    asleep = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND state = 'active' AND query LIKE '%pg_sleep(600)'"
    )
    async with asyncio.timeout(HANG_SECONDS):
        while await seeded.fetchval(asleep):
            await asyncio.sleep(0.02)
