"""The turn: its gates are those of the moment in which it has the row, and of several at once one turns."""

import asyncio
import json
from collections.abc import Awaitable

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.phase import turn
from shared.phase.gates import Limits
from shared.phase.phases import ORDER, Phase
from shared.phase.turn import Turn, TurnRefusedError
from shared.postgres.faults import LOCK_NOT_AVAILABLE, sqlstate
from tests.legacy_rows import seed
from tests.phase.meeting import COMPARE, LONG_AGO, PHASE, meet_gates
from tests.processes import HANG_SECONDS

HOLD = "SELECT FROM migration_phase FOR UPDATE"
DRIFT = """
    INSERT INTO audit_runs (status, verdict, requested_by, repair, started_at, heartbeat_at, finished_at,
        planned, compared, missing, canary_found)
    VALUES ('finished', 'drift', 'schedule', false, clock_timestamp(), clock_timestamp(), clock_timestamp(),
        3, 3, 1, true)
"""
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND wait_event_type = 'Lock'"
LIMITS = Limits(0, 0, 1)


@pytest.fixture(autouse=True)
async def _met(sql: asyncpg.Connection, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meet every gate of the phase Outbox, and wait for a row for as long as a busy machine may take."""
    monkeypatch.setattr(turn, "LOCK_TIMEOUT", f"{HANG_SECONDS}s")
    await seed(sql)
    await meet_gates(engine, sql)
    await sql.execute("UPDATE migration_phase SET phase = 'outbox', epoch = 1")


async def advanced(engine: AsyncEngine, epoch: int | None = None, **more: object) -> Turn:
    async with engine.begin() as connection:
        return await turn.advance(connection, actor="ann", limits=LIMITS, epoch=epoch, **more)  # type: ignore[arg-type]


async def went_back(engine: AsyncEngine, epoch: int | None = None) -> Turn:
    async with engine.begin() as connection:
        return await turn.back(connection, actor="bob", epoch=epoch)


async def until_waiting(sql: asyncpg.Connection, sessions: int) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while await sql.fetchval(WAITING) < sessions:
            await asyncio.sleep(0.01)


async def test_what_is_found_while_a_turn_waits_for_the_row_is_seen_by_its_gates(
    sql: asyncpg.Connection, engine: AsyncEngine, database_url: str
) -> None:
    auditor = await asyncpg.connect(database_url)
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute(HOLD)
    turning = asyncio.create_task(advanced(engine))
    await until_waiting(auditor, 1)
    await auditor.execute(DRIFT)
    await auditor.close()
    await transaction.commit()
    with pytest.raises(TurnRefusedError, match="Both tables are equal, over all pairs: drift") as refused:
        await turning
    assert [gate.name for gate in refused.value.gates if not gate.is_met] == ["audit"]
    assert tuple(await sql.fetchrow(PHASE)) == ("outbox", 1)
    assert await sql.fetchval("SELECT count(*) FROM phase_turns") == 0


@pytest.mark.parametrize("operators", [2, 5])
async def test_of_operators_who_turn_what_they_saw_at_once_one_turns(
    sql: asyncpg.Connection, engine: AsyncEngine, database_url: str, operators: int
) -> None:
    """Each of them would be let on by the gates of the next phase as well."""
    watcher = await asyncpg.connect(database_url)
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute(HOLD)
    acts: list[Awaitable[Turn]] = [advanced(engine, 1) for _ in range(operators - 1)]
    turning = asyncio.gather(*acts, went_back(engine, 1), return_exceptions=True)
    await until_waiting(watcher, operators)
    await watcher.close()
    await transaction.rollback()
    done = await turning
    turned = [act for act in done if isinstance(act, Turn)]
    refusals = [str(act) for act in done if isinstance(act, TurnRefusedError)]
    assert (len(turned), len(refusals)) == (1, operators - 1)
    assert {refusal[:40] for refusal in refusals} == {"The phase was turned since you looked: i"}
    assert tuple(await sql.fetchrow(PHASE)) == (turned[0].to_phase, 2)
    assert await sql.fetchval("SELECT count(*) FROM phase_turns") == 1


async def test_a_row_that_is_held_is_waited_for_no_longer_than_the_limit(
    sql: asyncpg.Connection, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "LOCK_TIMEOUT", "20ms")
    async with sql.transaction():
        await sql.execute(HOLD)
        with pytest.raises(DBAPIError) as failed:
            await advanced(engine)
    assert sqlstate(failed.value) == LOCK_NOT_AVAILABLE


async def test_each_turn_is_kept_with_its_gates_and_the_way_leads_there_and_back(
    sql: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await sql.execute("UPDATE migration_phase SET phase = 'legacy_only', epoch = 0")
    for phase in ORDER[1:]:
        if phase is Phase.READS_MOVED:
            await sql.execute(COMPARE)
        turned = await advanced(engine, phase.number - 1)
        assert (turned.to_phase, turned.epoch, turned.forced) == (phase, phase.number, False)
    with pytest.raises(TurnRefusedError, match="Reads moved is the last phase"):
        await advanced(engine)
    for phase in ORDER[-2::-1]:
        assert (await went_back(engine)).to_phase is phase
    with pytest.raises(TurnRefusedError, match="Legacy only is the first phase"):
        await went_back(engine)
    rows = await sql.fetch("SELECT * FROM phase_turns ORDER BY epoch")
    assert [row["epoch"] for row in rows] == list(range(1, 9))
    assert [row["kind"] for row in rows] == ["advance"] * 4 + ["back"] * 4
    moved = json.loads(rows[3]["gates"])
    assert [gate["name"] for gate in moved] == ["workers", "backlog", "writers", "letters", "audit", "shadow"]
    assert all(gate["is_met"] for gate in moved)
    assert moved[-1]["value"] == "1,000 lists, 0 mismatches"


async def test_forcing_takes_a_reason_and_what_needs_no_force_is_not_called_forced(
    sql: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await advanced(engine, forced=True, reason="in a hurry")
    await sql.execute("DELETE FROM worker_processes")
    with pytest.raises(TurnRefusedError, match="Forcing needs a reason"):
        await advanced(engine, forced=True)
    forced = await advanced(engine, forced=True, reason="the worker is being replaced")
    assert (forced.to_phase, forced.forced) == (Phase.SHADOW_READS, True)
    rows = await sql.fetch("SELECT reason, forced FROM phase_turns ORDER BY epoch")
    assert [tuple(row) for row in rows] == [("in a hurry", False), ("the worker is being replaced", True)]


async def test_what_is_not_known_at_the_turn_is_no_gate_that_is_met(
    sql: asyncpg.Connection, engine: AsyncEngine
) -> None:
    """A table that somebody has locked is passed over, and not waited for while the row is held."""
    async with sql.transaction():
        await sql.execute("LOCK TABLE outbox_dead_letters IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TurnRefusedError, match="No dead letter is open: not known"):
            await advanced(engine)


async def test_without_its_row_nothing_is_turned(sql: asyncpg.Connection, engine: AsyncEngine) -> None:
    await sql.execute("DELETE FROM migration_phase")
    for act in (advanced(engine), went_back(engine)):
        with pytest.raises(TurnRefusedError, match="The row of migration_phase is gone"):
            await act


async def test_an_audit_that_found_drift_in_the_phase_begins_the_wait_anew(
    sql: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await sql.execute("UPDATE migration_phase SET phase = 'verified'")
    await sql.execute(LONG_AGO)
    await sql.execute(DRIFT)
    proof = DRIFT.replace("'drift'", "'in_sync'").replace("3, 3, 1", "3, 3, 0")
    await sql.execute(proof)
    async with engine.begin() as connection:
        with pytest.raises(TurnRefusedError) as refused:
            await turn.advance(connection, actor="ann", limits=Limits(0, HANG_SECONDS * 10, 1))
        await connection.execute(text("UPDATE audit_runs SET verdict = 'in_sync', missing = 0"))
        await turn.advance(connection, actor="ann", limits=Limits(0, HANG_SECONDS * 10, 1))
    assert [gate.name for gate in refused.value.gates if not gate.is_met] == ["held"]
