"""A dump taken while events wait, restored elsewhere: versions go on from where they were."""

import asyncio
import subprocess

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from deploy.local.postgres import Postgres
from shared.database import create_engine
from tests.acceptance.conftest import SettingsFor
from tests.audit.pairs import audited, found
from tests.audit.test_repair import relaying
from tests.databases import Databases
from tests.drift import drift
from tests.legacy_rows import seed, set_collection
from worker.outcomes import Outcome
from worker.relay import drain


@pytest.fixture
async def before(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    """Collections that were applied, one that was deleted, and events that wait."""
    await seed(sql)
    for key in ("changes", "waits", "gone"):
        await set_collection(engine, key, "applied")
    await set_collection(engine, "gone", is_active=False)
    await drain(engine)
    await set_collection(engine, "waits", "not applied yet")


def restore(postgres: Postgres, url: str, into: str) -> None:
    """Dump all of the database as SQL and run that in another one."""
    dump = [str(postgres.binary("pg_dump")), "--dbname", url]
    load = [str(postgres.binary("psql")), "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", into]
    dumped = subprocess.run(dump, check=True, capture_output=True)
    subprocess.run(load, check=True, capture_output=True, input=dumped.stdout)


@pytest.mark.usefixtures("before")
async def test_after_a_restore_new_events_are_newer_than_what_was_applied_before_the_dump(
    postgres: Postgres, databases: Databases, database_url: str, settings_for: SettingsFor
) -> None:
    with databases.clone("template0") as elsewhere:
        await asyncio.to_thread(restore, postgres, database_url, elsewhere)
        engine = create_engine(
            settings_for(elsewhere), application_name="test", pool_size=5, statement_timeout_seconds=30
        )
        sql = await asyncpg.connect(elsewhere)
        highest = await sql.fetchval("SELECT max(version) FROM applied_versions")
        pending = await sql.fetchval("SELECT max(id) FROM outbox_events")
        assert pending > highest
        assert await set_collection(engine, "changes", "after the restore") > pending
        assert await set_collection(engine, "gone", "brought back") > pending
        assert await drain(engine) == {Outcome.APPLIED: 3}
        assert await drift(sql) == []
        await sql.close()
        await engine.dispose()


@pytest.mark.usefixtures("before")
async def test_where_versions_began_anew_the_audit_shows_what_no_event_can_change(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    """As after a restore, or a logical replica's promotion, that left the sequence out."""
    await drain(engine)
    await sql.execute("UPDATE applied_versions SET version = version + 1000")
    await set_collection(engine, "changes", "too low a version")
    assert await drain(engine) == {Outcome.STALE: 1}
    async with relaying(engine):
        run = await audited(engine, repair=True)
    assert (run.verdict, run.mismatched, run.repaired) == ("drift", 1, 0)
    assert await found(sql) == {"changes": "mismatched"}
