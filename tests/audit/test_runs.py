"""The life of a run: requested, taken up by one process, kept alive, taken up anew, finished, forgotten."""

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api.admin.verification import FIND_REQUESTED
from shared.audit_runs import AuditOptions, AuditRun, fetch, latest_finished, request
from shared.events import Source
from shared.settings import Settings
from tests.audit.pairs import AUDIT, audited, found, put_legacy, put_synced
from tests.backfill.driving import until_gone, until_waiting
from tests.legacy_rows import set_collection
from tests.processes import HANG_SECONDS, environment, running
from worker.audit.custody import IS_DUE, PRUNE, TAKE_UP, finish, is_due, take_up
from worker.audit.run import carry_out
from worker.custody import Custody, RunLostError
from worker.vitals.runs import LOOK

NEVER_OVERDUE = """
    CREATE FUNCTION put_off() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.heartbeat_at := NEW.heartbeat_at + interval '1 hour'; RETURN NEW; END $$;
    CREATE TRIGGER put_off BEFORE INSERT OR UPDATE OF heartbeat_at ON audit_runs
        FOR EACH ROW EXECUTE FUNCTION put_off();
"""
HEARTBEAT = "SELECT heartbeat_at FROM audit_runs"
ENDED = """
    INSERT INTO audit_runs (status, requested_by, repair, started_at, heartbeat_at, finished_at)
    SELECT $1, 'admin', false, at, at, at FROM (SELECT now() - $2::text::interval) AS _ (at)
"""
AGE = "UPDATE audit_runs SET heartbeat_at = clock_timestamp() - interval '6 seconds'"


async def ask(engine: AsyncEngine, options: AuditOptions) -> int:
    async with engine.begin() as connection:
        return await request(connection, options, "admin")


async def taken(engine: AsyncEngine) -> Custody[AuditRun]:
    custody = await take_up(engine)
    assert custody is not None
    return custody


async def taken_up(engine: AsyncEngine) -> int:
    return (await taken(engine)).run.id


async def test_a_requested_audit_is_taken_up_once_and_carried_out(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_synced(seeded, 20)
    run_id = await ask(engine, AuditOptions(project_id="p1"))
    async with engine.connect() as connection:
        requested = await fetch(connection, run_id)
        assert requested is not None
        assert (requested.status, requested.verdict, requested.age_seconds) == ("requested", None, None)

    (custody,) = filter(None, await asyncio.gather(*(take_up(engine) for _ in range(4))))
    taken_at = await seeded.fetchval("SELECT started_at FROM audit_runs")
    run = await carry_out(custody, interrupted=asyncio.Event())
    passed = await seeded.fetchval("SELECT clock_timestamp() - $1::timestamptz", taken_at)

    assert (run.id, run.verdict, run.requested_by, run.project_id) == (run_id, "in_sync", "admin", "p1")
    assert run.age_seconds is not None
    assert 0 <= run.age_seconds <= passed.total_seconds()
    async with engine.connect() as connection:
        latest = await latest_finished(connection)
    assert latest is not None
    assert latest.id == run_id
    assert await take_up(engine) is None


async def test_two_requests_go_to_two_processes(engine: AsyncEngine, seeded: asyncpg.Connection) -> None:
    ids = [await ask(engine, AuditOptions()) for _ in range(2)]

    assert sorted(await asyncio.gather(taken_up(engine), taken_up(engine)), key=str) == ids
    await seeded.execute("DELETE FROM audit_runs")


async def test_a_run_whose_process_was_killed_starts_anew(
    engine: AsyncEngine, seeded: asyncpg.Connection, settings: Settings
) -> None:
    await put_synced(seeded, 20)
    await put_legacy(seeded, "missing")
    env = environment(settings.database_url.get_secret_value(), "")
    await seeded.execute(NEVER_OVERDUE)
    async with seeded.transaction():
        await seeded.execute("LOCK TABLE project_collections")
        with running(["-m", "worker.audit", "--json"], env) as process:
            await until_waiting(seeded, AUDIT)
            async with asyncio.timeout(HANG_SECONDS):
                for _ in range(2):  # the process waits for the table; its heart goes on
                    beat = await seeded.fetchval(HEARTBEAT)
                    while await seeded.fetchval(HEARTBEAT) == beat:
                        await asyncio.sleep(0.02)
            assert await take_up(engine) is None
            process.kill()
    await until_gone(seeded, AUDIT)
    await seeded.execute("DROP TRIGGER put_off ON audit_runs")
    await seeded.execute(AGE)

    run = await carry_out(await taken(engine), interrupted=asyncio.Event())

    assert (run.verdict, run.requested_by, run.missing, run.compared) == ("drift", "command", 1, 21)
    assert await found(seeded) == {"missing": "missing"}


async def test_what_a_killed_repair_had_appended_is_still_verified(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_legacy(seeded, "repaired")
    await put_legacy(seeded, "reported")
    first = await audited(engine, repair=True, patience_seconds=0.1)
    assert (first.verdict, first.repaired) == ("drift", 0)
    # As a process leaves it that was killed after it had appended one of two events.
    await seeded.execute("""
        UPDATE audit_runs SET status = 'running', verdict = NULL, finished_at = NULL;
        UPDATE audit_findings SET repair_event_id = NULL, outcome = NULL WHERE collection_id = 'reported';
        UPDATE audit_findings SET outcome = NULL;
        DELETE FROM outbox_events;
        INSERT INTO project_collections (project_id, collection_id, research_context, created_at, updated_at)
        SELECT project_id, collection_id, description, created_at, updated_at FROM collections
    """)
    await seeded.execute(AGE)

    custody = await taken(engine)
    assert custody.run.id == first.id
    run = await carry_out(custody, interrupted=asyncio.Event())

    assert (run.verdict, run.missing, run.repaired) == ("repaired", 1, 1)
    assert await found(seeded) == {"repaired": "missing"}


async def test_a_process_that_was_thought_dead_writes_nothing_more(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    run_id = await ask(engine, AuditOptions())
    frozen = await taken(engine)
    await seeded.execute(AGE)
    assert [frozen.run.id, await taken_up(engine)] == [run_id, run_id]

    with pytest.raises(RunLostError):
        await frozen.write({"compared": 7})
    with pytest.raises(RunLostError):
        await finish(frozen, {"status": "finished", "verdict": "in_sync"})

    row = await seeded.fetchrow("SELECT status, compared FROM audit_runs")
    assert (row["status"], row["compared"]) == ("running", 0)


LOSSES = {
    "taken by another": "driver_token = gen_random_uuid()",
    "taken by a release that knows no token": "started_at = clock_timestamp()",
    "ended": "status = 'failed', finished_at = clock_timestamp()",
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_run_that_was_lost_is_not_carried_out(
    loss: str, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await ask(engine, AuditOptions())
    custody = await taken(engine)
    await seeded.execute(f"UPDATE audit_runs SET {LOSSES[loss]}")  # noqa: S608 - constants
    before = await seeded.fetchrow("SELECT * FROM audit_runs")

    with pytest.raises(RunLostError, match=f"Audit run {custody.run.id} was taken up by another process"):
        await carry_out(custody, interrupted=asyncio.Event())
    assert await seeded.fetchrow("SELECT * FROM audit_runs") == before


NOW = datetime(2030, 1, 1, tzinfo=UTC)
CLOCK = """
    CREATE SCHEMA clock;
    CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
        $$ SELECT timestamptz '2030-01-01 00:00Z' $$;
    DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET search_path = clock, pg_catalog, public', current_database());
    END $$;
"""
DUE = {
    ("finished", "62 s", "61 s"): True,
    ("finished", "60 s", "59 s"): False,
    ("finished", "215 s", "205 s"): True,  # it took ten seconds: 200 s of rest
    ("finished", "205 s", "195 s"): False,
    ("failed", "31 s", "30 s"): False,  # no storm of audits that all fail
}


@pytest.mark.parametrize("last", DUE, ids="-".join)
async def test_the_schedule_lets_audits_take_a_twentieth_of_the_time(
    last: tuple[str, str, str], engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await seeded.execute(CLOCK)  # of the sessions that begin from now on: it stands still
    assert await is_due(engine)
    await seeded.execute(
        """
        INSERT INTO audit_runs (status, requested_by, repair, started_at, heartbeat_at, finished_at)
        VALUES ($1, 'schedule', false, $4::timestamptz - $2::text::interval,
            $4::timestamptz - $3::text::interval, $4::timestamptz - $3::text::interval)
        """,
        *last,
        NOW,
    )

    assert await is_due(engine) is DUE[last]


BACKFILLED = """
    INSERT INTO backfill_runs (status, in_worker, max_pending, chunk_size, planned, finished_at)
    VALUES ('finished', true, 1, 1, 0, clock_timestamp())
"""
REPAIRED = """
    INSERT INTO audit_runs (status, verdict, requested_by, repair, repaired, project_id, started_at,
        heartbeat_at, finished_at)
    SELECT 'finished', 'repaired', 'command', true, 1, $1, t, t, t FROM clock_timestamp() AS t
"""


@pytest.mark.parametrize("what", ["a backfill", "a repair of everything", "a repair of a project"])
async def test_after_a_backfill_or_a_repair_one_is_due_once_as_soon_as_its_events_are_applied(
    what: str, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await seeded.execute(ENDED, "finished", "0 s")
    assert not await is_due(engine)
    if what == "a backfill":
        await seeded.execute(BACKFILLED)
    else:
        await seeded.execute(REPAIRED, None if what.endswith("everything") else "p1")
    assert await is_due(engine)
    await set_collection(engine, "c1", source=Source.BACKFILL)
    assert not await is_due(engine)
    await seeded.execute("DELETE FROM outbox_events")
    assert await is_due(engine)
    await seeded.execute(ENDED, "failed", "0 s")  # no storm of audits that all fail
    assert not await is_due(engine)


@pytest.mark.parametrize("status", ["requested", "running"])
async def test_no_audit_is_due_while_one_waits_or_runs(
    status: str, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await seeded.execute(
        "INSERT INTO audit_runs (status, requested_by, repair, started_at, heartbeat_at)"
        " VALUES ($1, 'admin', false, clock_timestamp(), clock_timestamp())",
        status,
    )

    assert not await is_due(engine)


async def test_runs_are_forgotten_after_a_month_but_never_the_last_proof(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await seeded.execute(ENDED, "finished", "31 days")
    await seeded.execute(ENDED, "failed", "31 days")
    await seeded.execute(ENDED, "finished", "29 days")
    await seeded.execute(
        "INSERT INTO audit_findings (audit_run_id, collection_id, project_id, kind)"
        " SELECT id, 'c', 'p1', 'missing' FROM audit_runs"
    )

    run = await audited(engine)

    kept = await seeded.fetch("SELECT id FROM audit_runs ORDER BY id")
    assert [row["id"] for row in kept] == [3, run.id]
    assert await seeded.fetchval("SELECT count(*) FROM audit_findings") == 1


async def test_which_run_is_the_newest_is_told_by_time_although_ids_began_anew(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    """As after a restore without sequences: what comes later has lower ids."""
    assert await is_due(engine)  # over a connection that is lent from here on
    await seeded.execute("ALTER SEQUENCE audit_runs_id_seq RESTART 3000")
    await seeded.execute(ENDED, "finished", "40 days")
    await seeded.execute(ENDED, "failed", "35 days")
    await seeded.execute("ALTER SEQUENCE audit_runs_id_seq RESTART")
    await seeded.execute(ENDED, "finished", "31 days")
    async with engine.connect() as connection:
        latest = await latest_finished(connection)
    assert latest is not None
    assert latest.id == 1
    state = (await seeded.fetchrow(LOOK.text))["audited_at"]
    assert state == latest.finished_at.timestamp()  # type: ignore[union-attr]
    assert await is_due(engine)
    await seeded.execute(ENDED, "failed", "0 s")
    assert not await is_due(engine)
    await seeded.execute(PRUNE.text)
    assert await seeded.fetchval("SELECT array_agg(id ORDER BY id) FROM audit_runs") == [1, 2]


@pytest.mark.parametrize("kept", ["a proof", "no proof"])
async def test_what_failed_long_ago_is_forgotten(
    kept: str, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    if kept == "a proof":
        await seeded.execute(ENDED, "finished", "50 days")
    await seeded.execute(ENDED, "failed", "40 days")
    async with engine.begin() as connection:
        await connection.execute(PRUNE)
    assert await seeded.fetchval("SELECT count(*) FROM audit_runs WHERE status = 'failed'") == 0


async def test_a_run_without_a_heartbeat_is_dead_and_taken_up(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    """As one may have been left from before the table refused it."""
    await seeded.execute("ALTER TABLE audit_runs DROP CONSTRAINT audit_runs_begun_unless_requested")
    await seeded.execute(
        "INSERT INTO audit_runs (status, requested_by, repair) VALUES ('running', '', false)"
    )
    custody = await taken(engine)
    assert custody.run.id == 1
    assert (await carry_out(custody, interrupted=asyncio.Event())).verdict == "in_sync"


@pytest.mark.parametrize("project_id", ["p1", "no such project"])
async def test_however_many_audits_of_a_project_wait_those_of_everything_come_first(
    project_id: str, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await seeded.execute(
        "INSERT INTO audit_runs (status, requested_by, repair, project_id)"
        " SELECT 'requested', 'admin', false, $1 FROM generate_series(1, 2000)",
        project_id,
    )
    assert await is_due(engine)
    of_everything = await ask(engine, AuditOptions())
    assert not await is_due(engine)
    assert await taken_up(engine) == of_everything
    assert await taken_up(engine) == 1


async def test_what_waits_and_what_is_newest_is_found_by_index(seeded: asyncpg.Connection) -> None:
    await seeded.execute(
        "INSERT INTO audit_runs (status, requested_by, repair, started_at, heartbeat_at, finished_at)"
        " SELECT 'finished', 'schedule', false, at, at, at"
        " FROM generate_series(now() - interval '30 days', now(), interval '1 minute') AS at"
    )
    await seeded.execute(
        "INSERT INTO backfill_runs (status, in_worker, max_pending, chunk_size, planned)"
        " SELECT 'cancelled', true, 1, 1, 0 FROM generate_series(1, 2000)"
    )
    await seeded.execute(BACKFILLED)
    await seeded.execute("ANALYZE audit_runs, backfill_runs")
    take_up = TAKE_UP.text.replace(":token", "gen_random_uuid()")
    for statement in (take_up, IS_DUE.text, FIND_REQUESTED.text.replace(":repair", "false")):
        plan = "\n".join(row[0] for row in await seeded.fetch(f"EXPLAIN {statement}"))
        assert "Seq Scan" not in plan, plan


async def test_the_last_proof_is_kept_when_later_audits_only_fail(
    engine: AsyncEngine, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seeded.execute(ENDED, "finished", "40 days")

    async def fail(*_: object) -> None:
        msg = "the disk is gone"
        raise OSError(msg)

    monkeypatch.setattr("worker.audit.run.blindness", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        await audited(engine)

    statuses = await seeded.fetch("SELECT status FROM audit_runs ORDER BY id")
    assert [row["status"] for row in statuses] == ["finished", "failed"]
