"""From many states that something broke, an operator who types what is said gets back to *in sync*."""

import contextlib

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from tests.drift import drift
from tests.phase1.script import BEFORE_PHASE_1, SCRIPT
from tests.processes import environment
from tests.status.operator import Operator, operator

LINKED = "c03"
WRITE = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.updated', 'api', jsonb_build_object('project_id', project_id,
        'research_context', description, 'created_at', created_at, 'updated_at', updated_at)
    FROM collections WHERE collection_id = 'c08'
"""
# Each with the words of which one must be the first; a worker's own audit may have seen it before us.
BREAKS = {
    "a row that is too much": (
        (
            "INSERT INTO project_collections (project_id, collection_id) SELECT project_id, collection_id"
            " FROM collections WHERE collection_id = 'c33'"
        ),
        {"in_sync", "drift"},
    ),
    "all rows gone": ("DELETE FROM project_collections WHERE collection_id <> 'c03'", {"in_sync", "drift"}),
    "an audit of long ago": (
        (
            "UPDATE audit_runs SET started_at = started_at - interval '1 hour',"
            " finished_at = finished_at - interval '1 hour', heartbeat_at = clock_timestamp();"
            " UPDATE backfill_runs SET finished_at = finished_at - interval '1 hour'"
        ),
        {"outdated", "not_audited", "in_sync"},
    ),
    "no audit at all": ("DELETE FROM audit_runs", {"not_audited", "in_sync"}),
    "an audit that came to no end": (
        (
            "INSERT INTO audit_runs (status, verdict, requested_by, repair, error, started_at, heartbeat_at,"
            " finished_at) SELECT 'failed', NULL, 'command', false, 'interrupted', t, t, t"
            " FROM clock_timestamp() AS t"
        ),
        {"incomplete", "in_sync"},
    ),
    "a letter of what is gone": (
        (
            "INSERT INTO outbox_dead_letters"
            " (id, aggregate_id, event_type, source, payload, created_at, error)"
            " SELECT nextval('outbox_events_id_seq'), 'ghost', 'collection.updated', 'api', '{}',"
            " clock_timestamp(), 'no'"
        ),
        {"dead_letters"},
    ),
    "no backfill that ended": (
        (
            "UPDATE backfill_runs SET status = 'cancelled'; DELETE FROM audit_runs; DELETE FROM"
            " project_collections WHERE collection_id = 'c09'"
        ),
        {"not_backfilled"},
    ),
    "a backfill of one project alone": (
        (
            "UPDATE backfill_runs SET project_id = 'p1'; DELETE FROM audit_runs; DELETE FROM"
            " project_collections WHERE collection_id = 'c09'"
        ),
        {"not_backfilled"},
    ),
    "a rollback that was interrupted": (
        (
            "UPDATE backfill_runs SET status = 'cancelled'; INSERT INTO audit_runs (status, verdict,"
            " requested_by, repair, started_at, heartbeat_at, finished_at) SELECT 'failed', 'incomplete',"
            " 'rollback', false, t, t, t FROM clock_timestamp() AS t"
        ),
        {"rollback_interrupted"},
    ),
    "a sequence of runs that went back": ("SELECT setval('audit_runs_id_seq', 1)", {"unfit"}),
}


@pytest.mark.wide
@pytest.mark.slow
async def test_from_every_broken_state_an_operator_who_types_what_is_said_gets_back_to_in_sync(
    database_url: str, redis_url: str, sql: asyncpg.Connection
) -> None:
    await sql.execute(BEFORE_PHASE_1)
    with operator(environment(database_url, redis_url)) as person:
        await person.until_all_is_well()
        for name, (broken, firsts) in BREAKS.items():
            await sql.execute(broken)
            words = await person.until_all_is_well()
            assert words[0] in firsts, name
            await person.type("python -m worker.audit", "")
            await person.until_all_is_well()
            assert await drift(sql) == [LINKED], (name, person.typed)
        await _spells(person, sql, database_url)
        await person.stop_workers()
        await person.type(f"python {SCRIPT} --rollback --yes", "")
        await sql.execute("UPDATE audit_runs SET status = 'failed' WHERE requested_by = 'rollback'")
        words = await person.until_all_is_well()
        assert words[:2] == ["rollback_interrupted", "rolled_back"]


async def _spells(person: Operator, sql: asyncpg.Connection, database_url: str) -> None:
    """Let pass what only waiting helps against."""
    name = make_url(database_url).database
    await sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert (await person.see()).word == "read_only"
    await sql.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await person.until_all_is_well()
    async with contextlib.AsyncExitStack() as stack:
        holder = await asyncpg.connect(database_url, server_settings={"application_name": "psql"})
        stack.push_async_callback(holder.close)
        async with holder.transaction():
            await holder.execute("LOCK TABLE project_collections IN ACCESS EXCLUSIVE MODE")
            await sql.execute(WRITE)
            assert f"pid {holder.get_server_pid()} (psql)" in (await person.until("stuck")).sentence
    await person.until_all_is_well()
