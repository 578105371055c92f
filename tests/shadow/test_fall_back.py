"""Reads that moved go back by themselves when a comparison finds a mismatch: once, and on record."""

import asyncio
import contextlib

import asyncpg
import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from api.shadow.sampler import Shadow
from shared.phase.fall_back import fall_back
from shared.phase.phases import Phase
from shared.postgres.database import driver_connection
from tests.race.freezing import until_blocked
from tests.shadow.lists import compared
from tests.shadow.situations import FAULTS, Scene, turn

PHASE = "SELECT phase, epoch FROM migration_phase"
TURNS = "SELECT epoch, from_phase, to_phase, kind, actor, reason, forced, losses FROM phase_turns"
# As operators' SQL and programs do that know nothing of the outbox.
BYPASS = "UPDATE collections SET description = 'past the outbox' WHERE collection_id = 'b'"
LEGACY = "SELECT description FROM collections WHERE is_active ORDER BY created_at, collection_id"
PROCESSES = 4


async def test_a_writer_past_the_outbox_is_found_after_the_turn_and_lists_equal_legacy_again(
    client: httpx.AsyncClient, shadow: Shadow, scene: Scene
) -> None:
    await compared(client, shadow)  # a process that knows the phase before
    epoch = await turn(scene.sql, Phase.READS_MOVED)
    await compared(client, shadow)
    await scene.sql.execute(BYPASS)
    with capture_logs() as lines:
        stale = await compared(client, shadow)
        again = await compared(client, shadow)
    assert [row["description"] for row in stale] == ["text of a", "text of b", "text of c"]
    assert [row["description"] for row in again] == [row[0] for row in await scene.sql.fetch(LEGACY)]
    assert tuple(await scene.sql.fetchrow(PHASE)) == ("shadow_reads", epoch + 1)
    [record] = await scene.sql.fetch(TURNS)
    assert tuple(record)[:4] == (epoch + 1, "reads_moved", "shadow_reads", "fall_back")
    assert record["actor"].startswith("collection-sync api ")
    assert "collection b is mismatched" in record["reason"]
    [line] = [line for line in lines if line["event"] == "reads_fell_back"]
    assert (line["epoch"], line["collection_id"], line["kind"]) == (epoch + 1, "b", "mismatched")
    assert shadow.mismatches.fell_back == 1


@pytest.mark.parametrize("kind", FAULTS)
async def test_each_fault_turns_it_back(
    kind: str, client: httpx.AsyncClient, shadow: Shadow, scene: Scene
) -> None:
    await turn(scene.sql, Phase.READS_MOVED)
    await scene.sql.execute(FAULTS[kind], "c")
    await compared(client, shadow)
    assert (await scene.sql.fetchrow(PHASE))["phase"] == "shadow_reads"


async def test_what_waits_or_died_turns_nothing_back(
    client: httpx.AsyncClient, shadow: Shadow, scene: Scene
) -> None:
    epoch = await turn(scene.sql, Phase.READS_MOVED)
    await scene.write("a")
    await scene.die("b")
    await compared(client, shadow, 3)
    assert tuple(await scene.sql.fetchrow(PHASE)) == ("reads_moved", epoch)


async def test_where_it_is_not_to_fall_back_the_mismatch_is_kept_and_reads_stay(
    client: httpx.AsyncClient, shadow: Shadow, scene: Scene
) -> None:
    await scene.sql.execute("UPDATE migration_phase SET falls_back = false")
    epoch = await turn(scene.sql, Phase.READS_MOVED)
    await scene.sql.execute(FAULTS["missing"], "c")
    await compared(client, shadow, 2)
    async with driver_connection(shadow._engine) as connection:  # noqa: SLF001 - a process that knew better before
        assert await fall_back(connection, epoch, actor="test", reason="why") is None
    assert tuple(await scene.sql.fetchrow(PHASE)) == ("reads_moved", epoch)
    assert await scene.sql.fetchval("SELECT kind FROM shadow_findings") == "missing"


async def test_while_somebody_holds_the_row_it_waits_for_the_next_storing(
    client: httpx.AsyncClient, shadow: Shadow, scene: Scene
) -> None:
    await turn(scene.sql, Phase.READS_MOVED)
    await scene.sql.execute(FAULTS["missing"], "c")
    async with driver_connection(shadow._engine) as one, driver_connection(shadow._engine) as other:  # noqa: SLF001
        for connection in (one, other):
            await connection.execute("SET lock_timeout = '1ms'")
    async with scene.sql.transaction():
        await scene.sql.execute("SELECT FROM migration_phase FOR UPDATE")
        await compared(client, shadow)
        assert shadow.mismatches.fell_back == 0
        assert await scene.sql.fetchval("SELECT kind FROM shadow_findings") == "missing"
    await shadow.store()
    assert shadow.mismatches.fell_back == 1
    assert (await scene.sql.fetchrow(PHASE))["phase"] == "shadow_reads"


async def test_of_several_processes_at_once_one_turns_it(engine: AsyncEngine, scene: Scene) -> None:
    epoch = await turn(scene.sql, Phase.READS_MOVED)
    await scene.sql.execute(
        "INSERT INTO going_back_losses (took_seconds, further_links, tags, mappings, contexts, without_home)"
        " VALUES (1, 2, 3, 4, 5, 6)"
    )
    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(driver_connection(engine)) for _ in range(PROCESSES)]
        async with scene.sql.transaction():
            await scene.sql.execute("SELECT FROM migration_phase FOR UPDATE")
            turning = [
                asyncio.create_task(fall_back(connection, epoch, actor=f"process {number}", reason="why"))
                for number, connection in enumerate(connections)
            ]
            await until_blocked(scene.sql)
        began = await asyncio.gather(*turning)
    assert sorted(began, key=str) == [epoch + 1, *[None] * (PROCESSES - 1)]
    [record] = await scene.sql.fetch(TURNS)
    assert (record["actor"], record["epoch"]) == (f"process {began.index(epoch + 1)}", epoch + 1)
    assert '"further_links": 2' in record["losses"]
    assert '"without_home": 6' in record["losses"]


async def test_a_mismatch_of_an_earlier_epoch_turns_nothing(engine: AsyncEngine, scene: Scene) -> None:
    before = await turn(scene.sql, Phase.READS_MOVED)
    await turn(scene.sql, Phase.SHADOW_READS)
    now = await turn(scene.sql, Phase.READS_MOVED)
    async with driver_connection(engine) as connection:
        assert await fall_back(connection, before, actor="test", reason="why") is None
    assert tuple(await scene.sql.fetchrow(PHASE)) == ("reads_moved", now)
    assert await scene.sql.fetch(TURNS) == []


async def test_it_is_turned_with_all_that_the_record_needs_or_not_at_all(
    engine: AsyncEngine, scene: Scene
) -> None:
    epoch = await turn(scene.sql, Phase.READS_MOVED)
    async with driver_connection(engine) as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await fall_back(connection, epoch, actor="", reason="why")
    assert tuple(await scene.sql.fetchrow(PHASE)) == ("reads_moved", epoch)
