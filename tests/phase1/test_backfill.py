"""Without options: backfill, wait, compare, statistics; resumed when it was interrupted."""

import re
import signal

import asyncpg
import pytest

from tests.backfill.driving import COMMAND, until_gone, until_waiting
from tests.backfill.rows import fix_chunk_size
from tests.drift import drift
from tests.phase1.script import BEFORE_PHASE_1, SCRIPT, call, said, the_json
from tests.processes import running, running_worker

STATISTICS = {
    "processed": 35,
    "backfilled": 30,
    "skipped": 5,
    "active_collections": 30,
    "home_rows": 30,
    "match": True,
}
REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.collection_id = 'c05' THEN RAISE EXCEPTION 'c05 is refused'; END IF;
            RETURN NEW;
        END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON project_collections FOR EACH ROW EXECUTE FUNCTION refuse();
"""
ROWS = 40
CHUNK_ROWS = 16
HOLD = """
    CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS
        $$ BEGIN PERFORM pg_advisory_xact_lock(78); RETURN NEW; END $$;
    CREATE TRIGGER hold BEFORE UPDATE OF cursor_key ON backfill_runs FOR EACH ROW
        WHEN (OLD.cursor_key IS NOT NULL) EXECUTE FUNCTION hold();
"""
SILENT = "UPDATE backfill_runs SET heartbeat_at = clock_timestamp() - interval '3 seconds'"
MANY = """
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
    SELECT 'm' || lpad(number::text, 6, '0'), 'p1', 'name', 'owner', true
    FROM generate_series(1, $1::integer) AS number
"""


async def test_it_fills_proves_and_tells_the_statistics_and_a_second_call_has_nothing_to_do(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    await sql.execute(BEFORE_PHASE_1)
    async with running_worker(env):
        first = await call(env)
        second = await call(env, "--json")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines() == [
        "processed                       35",
        "backfilled                      30",
        "skipped                          5",
        "active collections              30",
        "home rows                       30",
        "match                         true",
    ]
    assert said(first) == ""
    assert (second.returncode, the_json(second)) == (0, STATISTICS | {"backfilled": 0, "skipped": 35})
    links = "SELECT count(*) FROM project_collections JOIN collections USING (collection_id) WHERE "
    assert await sql.fetchval(links + "project_collections.project_id <> collections.project_id") == 1
    await sql.execute("DELETE FROM project_collections WHERE collection_id = 'c03' AND project_id = 'p2'")
    assert [key for key in await drift(sql) if key != "c03"] == []


async def test_what_no_worker_can_apply_makes_it_fail_and_say_where_to_look(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    await sql.execute(BEFORE_PHASE_1)
    await sql.execute(REFUSE)
    async with running_worker(env):
        failed = await call(env, "--json")
        assert failed.returncode == 1
        assert the_json(failed) == STATISTICS | {"home_rows": 29, "match": False}
        assert "1 missing, 0 mismatched, 0 orphaned" in said(failed)
        assert "python -m worker.dead_letters list" in said(failed)
        assert (await call(env)).stdout.splitlines()[-1].split() == ["match", "false"]
        await sql.execute("DROP TRIGGER refuse ON project_collections")
        assert (await call(env)).returncode == 0


async def test_it_says_that_no_worker_runs_waits_and_goes_on_when_called_again(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    await sql.execute(BEFORE_PHASE_1)
    with running([SCRIPT], env) as script:
        await script.wait_for("backfill_finished")
        assert "No worker is connected to this database. Start one with `python -m worker`" in script.output
        script.signal(signal.SIGINT)
        assert await script.exit_code() == 1
        assert "Call this script again to go on." in script.output
    async with running_worker(env):
        again = await call(env, "--json")
    assert (again.returncode, the_json(again)["match"]) == (0, True)


async def test_after_a_kill_it_goes_on_where_it_stopped_and_says_so(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    await sql.execute(MANY, ROWS)
    await fix_chunk_size(sql, CHUNK_ROWS)
    await sql.execute(HOLD)
    await sql.execute("SELECT pg_advisory_lock(78)")
    with running([SCRIPT], env) as script:
        await until_waiting(sql, COMMAND)  # in its second chunk
        script.kill()
    await sql.execute("SELECT pg_advisory_unlock(78)")
    await until_gone(sql)
    cursor, status = await sql.fetchrow("SELECT processed, status FROM backfill_runs")
    assert (status, cursor) == ("running", CHUNK_ROWS)
    await sql.execute(SILENT)
    async with running_worker(env):
        again = await call(env, "--json")
    assert again.returncode == 0, again.stderr
    gone_on = re.search(rf"Backfill 1 was not finished: ([\d,]+) of {ROWS:,} rows were done", said(again))
    assert gone_on is not None
    assert int(gone_on[1].replace(",", "")) >= cursor
    counts = {"processed": ROWS, "backfilled": ROWS, "skipped": 0}
    assert the_json(again).items() >= counts.items()
    assert await sql.fetchval("SELECT count(*) FROM backfill_runs") == 1
    assert await drift(sql) == []


async def test_a_paused_run_of_one_project_is_ended_first_and_then_all_is_done(
    env: dict[str, str], sql: asyncpg.Connection
) -> None:
    await sql.execute(BEFORE_PHASE_1)
    await sql.execute(
        "INSERT INTO backfill_runs (status, in_worker, project_id, max_pending, chunk_size, planned, end_key)"
        " VALUES ('paused', true, 'p1', 1000, 1000, 12, 'c99')"
    )
    async with running_worker(env):
        done = await call(env, "--json")
    assert done.returncode == 0
    assert "Backfill 1 was not finished" in said(done)
    assert the_json(done).items() >= {"processed": 35, "active_collections": 30, "match": True}.items()
    statuses = await sql.fetch("SELECT status, project_id FROM backfill_runs ORDER BY id")
    assert [tuple(row) for row in statuses] == [("finished", "p1"), ("finished", None)]


async def test_a_dry_run_counts_and_changes_nothing(env: dict[str, str], sql: asyncpg.Connection) -> None:
    await sql.execute(BEFORE_PHASE_1)
    looked = await call(env, "--dry-run", "--json")
    assert looked.returncode == 0
    assert the_json(looked) == {"processed": 35, "backfilled": 30, "skipped": 5, "dry_run": True}
    assert await sql.fetchval(
        "SELECT (SELECT count(*) FROM outbox_events) + (SELECT count(*) FROM backfill_runs)"
    ) == 0  # fmt: skip
    spoken = (await call(env, "--dry-run")).stdout.splitlines()
    assert spoken[0] == "Dry run: nothing was changed."
    assert spoken[2].split() == ["backfilled", "30"]


@pytest.mark.parametrize(
    "options", [["--yes"], ["--rollback", "--yes", "--dry-run"], ["--project", "p1"], ["more"]], ids=str
)
async def test_wrong_usage_is_refused_with_status_2(env: dict[str, str], options: list[str]) -> None:
    refused = await call(env, *options)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "error:" in refused.stderr


async def test_help_needs_no_environment_and_a_missing_url_is_named(env: dict[str, str]) -> None:
    bare = {name: value for name, value in env.items() if not name.endswith("_URL")}
    taught = await call(bare, "--help")
    assert taught.returncode == 0
    for word in ("--rollback", "--yes", "DATABASE_URL", "exit status", "python -m worker"):
        assert word in taught.stdout
    refused = await call(bare)
    assert refused.returncode == 2
    assert "DATABASE_URL" in refused.stderr
    assert "Traceback" not in refused.stderr


async def test_it_works_without_redis(env: dict[str, str], sql: asyncpg.Connection) -> None:
    await sql.execute(BEFORE_PHASE_1)
    async with running_worker(env):
        without = {name: value for name, value in env.items() if name != "REDIS_URL"}
        assert the_json(await call(without, "--json")) == STATISTICS
