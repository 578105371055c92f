"""A rollback takes nothing from under moved reads, and the phase that rested on what it takes goes back."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.phase.phases import Phase
from tests.draining import drain
from tests.legacy_rows import set_collection
from tests.processes import HANG_SECONDS
from tests.race import freezing
from tests.rollback.situations import MAKE_MANY, guarded, ignore, ours, planned, rolled_back, shown
from tests.rollback.test_at_any_moment import BEFORE_REMOVAL, under_way
from worker.rollback import walk
from worker.rollback.phase import ReadsMovedError
from worker.rollback.run import roll_back
from worker.rollback.tally import Rollback
from worker.rollback.walk import RollbackInterruptedError

TURN = "UPDATE migration_phase SET phase = $1, epoch = 7"
TURNED = "SELECT epoch, from_phase, to_phase, kind, actor, forced, reason IS NOT NULL FROM phase_turns"
PHASE = "SELECT phase, epoch, actor FROM migration_phase"


async def turn(database_url: str, phase: Phase) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(TURN, phase)
    await connection.close()


async def test_while_reads_are_moved_it_is_refused_and_changes_nothing(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1")
    await drain(engine)
    await set_collection(engine, "c1", "later")
    await sql.execute(TURN, Phase.READS_MOVED)
    before = await ours(sql)
    with pytest.raises(ReadsMovedError, match=r"Reads are moved.* python -m worker\.phase back$"):
        await rolled_back(engine)
    assert (await ours(sql), await sql.fetch(TURNED)) == (before, [])
    looked = await planned(engine)
    assert (looked.removed, looked.phase, looked.turns_phase) == (1, Phase.READS_MOVED, False)


@pytest.mark.parametrize("phase", [Phase.VERIFIED, Phase.SHADOW_READS])
async def test_what_was_verified_is_so_no_longer_from_its_beginning_on(
    engine: AsyncEngine, sql: asyncpg.Connection, phase: Phase
) -> None:
    await sql.execute(TURN, phase)
    assert (await planned(engine)).turns_phase
    assert await sql.fetchval("SELECT phase FROM migration_phase") == phase
    interrupted = asyncio.Event()
    await set_collection(engine, "c1")

    def interrupt(_so_far: Rollback) -> None:
        interrupted.set()

    with pytest.raises(RollbackInterruptedError):
        await roll_back(engine, interrupted=interrupted, watch=interrupt)
    assert tuple(await sql.fetchrow(PHASE)) == ("outbox", 8, "rollback")
    turned = [tuple(row) for row in await sql.fetch(TURNED)]
    assert turned == [(8, phase, "outbox", "back", "rollback", False, True)]
    assert not (await roll_back(engine, interrupted=asyncio.Event(), watch=ignore)).turns_phase
    assert len(await sql.fetch(TURNED)) == 1


@pytest.mark.parametrize("phase", [Phase.LEGACY_ONLY, Phase.OUTBOX])
async def test_a_phase_that_rests_on_nothing_stays(
    engine: AsyncEngine, sql: asyncpg.Connection, phase: Phase
) -> None:
    await sql.execute(TURN, phase)
    assert not (await rolled_back(engine)).turns_phase
    assert (await sql.fetchval("SELECT phase FROM migration_phase"), await sql.fetch(TURNED)) == (phase, [])


async def test_where_the_phase_s_row_is_gone_reads_are_not_moved(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1")
    await drain(engine)
    await sql.execute("DELETE FROM migration_phase")
    assert (await rolled_back(engine)).removed == 1


async def test_reads_that_are_moved_in_the_middle_keep_what_is_left(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "CHUNK_ROWS", 2)
    await sql.execute(MAKE_MANY, 5)

    def move(done: Rollback) -> None:
        if done.removed == 2:
            with ThreadPoolExecutor(1) as apart:  # this loop waits for the watcher
                apart.submit(asyncio.run, turn(database_url, Phase.READS_MOVED)).result()

    with pytest.raises(ReadsMovedError):
        await roll_back(engine, interrupted=asyncio.Event(), watch=move)
    assert len(await shown(sql)) == len(await guarded(sql)) == 3


async def test_whoever_turns_the_phase_waits_for_the_chunk_in_hand_and_who_reads_does_not(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    await freezing.install(sql)
    await set_collection(engine, "one")
    await drain(engine)
    other = await asyncpg.connect(database_url)
    async with under_way(engine) as rolling_back:
        async with freezing.frozen(sql, BEFORE_REMOVAL):
            await freezing.arrived(sql, BEFORE_REMOVAL)
            await other.execute("SET lock_timeout = '100ms'")
            try:
                await other.execute(TURN, Phase.READS_MOVED)
                waited = False
            except asyncpg.LockNotAvailableError:
                waited = True
            listed = "SELECT count(*) FROM visible_collections WHERE project_id = 'p1'"
            assert await asyncio.wait_for(other.fetchval(listed), HANG_SECONDS) == 1
            await other.close()
        assert waited
        await rolling_back
