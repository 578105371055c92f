"""With --rollback: what an operator sees, and a kill in the middle of it."""

import asyncio
import signal

import asyncpg

from tests.backfill.driving import until_gone
from tests.drift import drift
from tests.phase1.script import BEFORE_PHASE_1, SCRIPT, call, said, the_json
from tests.processes import HANG_SECONDS, running, running_worker
from tests.rollback.situations import MAKE_MANY, guarded, legacy, ours, shown
from worker.rollback.walk import CHUNK_ROWS

COUNTS = {
    "removed": 27,
    "kept_enriched": 1,
    "kept_found": 2,
    "kept_links": 1,
    "discarded_events": 0,
}
STOP_THERE = """
    CREATE FUNCTION stop_there() RETURNS trigger LANGUAGE plpgsql
        SET lock_timeout = 0 AS $$ BEGIN PERFORM pg_advisory_xact_lock(77); RETURN OLD; END $$;
    CREATE TRIGGER stop_there BEFORE DELETE ON project_collections FOR EACH ROW
        WHEN (OLD.collection_id = 'c003000') EXECUTE FUNCTION stop_there();
"""
STOPPED = """
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND objid = 77 AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def test_phase_1_is_entered_left_and_entered_again(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    await sql.execute(BEFORE_PHASE_1)
    untouched = await sql.fetch("SELECT * FROM project_collections WHERE collection_id IN ('c01', 'c03')")
    async with running_worker(env) as worker:
        assert (await call(env)).returncode == 0
        await sql.execute("UPDATE project_collections SET tags = '[1]' WHERE collection_id = 'c10'")
        before = await ours(sql)
        refused = await call(env, "--rollback", "--yes", "--json")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "A worker is connected" in said(refused)
        assert "Stop the workers first" in said(refused)
        looked = await call(env, "--rollback", "--json")
        assert (looked.returncode, the_json(looked)) == (0, COUNTS | {"dry_run": True})
        assert "Stop the workers before --yes." in said(looked)
        assert await ours(sql) == before
        worker.signal(signal.SIGTERM)
        await worker.exit_code()
    await until_gone(sql, "^collection-sync worker$")

    legacy_rows = await legacy(sql)
    done = await call(env, "--rollback", "--yes")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Rolled back: 27 rows that this system had made are gone; 4 rows stay.")
    assert [line.split()[-1] for line in lines[1:7]] == ["27", "1", "2", "1", "0", "false"]
    assert lines[7] == "rows that stay:"
    assert "  project p2  collection c10  was enriched: tags" in lines[8:]
    assert len(lines) == 8 + 4
    assert await legacy(sql) == legacy_rows
    assert [key for key, _ in await shown(sql)] == ["c01", "c02", "c03", "c10"]
    for row in untouched:
        assert await sql.fetchrow("SELECT * FROM project_collections WHERE id = $1", row["id"])

    async with running_worker(env):
        again = await call(env, "--json")
    assert (again.returncode, the_json(again)["match"]) == (0, True)
    assert set(await drift(sql)) <= {"c03"}  # its link to another project


async def test_a_kill_in_the_middle_leaves_whole_chunks_and_another_call_does_the_rest(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    rows = 2 * CHUNK_ROWS + 1
    await sql.execute(MAKE_MANY, rows)
    await sql.execute(STOP_THERE)
    await sql.execute("SELECT pg_advisory_lock(77)")
    with running([SCRIPT, "--rollback", "--yes"], env) as script:
        async with asyncio.timeout(HANG_SECONDS):
            while not await sql.fetchval(STOPPED):
                await asyncio.sleep(0.01)
        script.kill()
    await sql.execute("SELECT pg_advisory_unlock(77)")
    await until_gone(sql, "rollback")
    left = [key for key, _ in await shown(sql)]
    assert left == await guarded(sql)
    assert len(left) == rows - CHUNK_ROWS
    again = await call(env, "--rollback", "--yes", "--json")
    assert the_json(again)["removed"] == rows - CHUNK_ROWS
    assert (await shown(sql), await guarded(sql)) == ([], [])


async def test_a_signal_ends_it_after_the_chunk_in_hand(env: dict[str, str], sql: asyncpg.Connection) -> None:
    rows = 2 * CHUNK_ROWS + 1
    await sql.execute(MAKE_MANY, rows)
    await sql.execute(STOP_THERE)
    await sql.execute("SELECT pg_advisory_lock(77)")
    with running([SCRIPT, "--rollback", "--yes"], env) as script:
        async with asyncio.timeout(HANG_SECONDS):
            while not await sql.fetchval(STOPPED):
                await asyncio.sleep(0.01)
        script.signal(signal.SIGINT)
        await sql.execute("SELECT pg_advisory_unlock(77)")
        assert await script.exit_code() == 1
        assert (
            f"Stopped after {2 * CHUNK_ROWS:,} rows were removed. Run the same again to go on."
            in script.output
        )
    assert len(await shown(sql)) == len(await guarded(sql)) == 1
