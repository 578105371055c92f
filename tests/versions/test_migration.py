"""The migration that brings the version: what it does to pending events, and this release without it."""

from pathlib import Path

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared.postgres.advice import LACKS_TABLES
from shared.revision import REVISION
from shared.settings import Settings
from tests.api.test_health import readiness
from tests.databases import Databases
from tests.legacy_rows import set_collection
from tests.migrations.test_migrations import alembic
from tests.security.as_role import connected
from tests.versions.kept_releases import BEFORE
from tests.versions.later import append_later, settle_knowing, waiting
from tests.worker.events import append_raw, outcomes
from worker.drainer import Drainer
from worker.preflight.checks.schema import columns
from worker.relay.outcomes import Outcome
from worker.vitals.heartbeat import Heart

WITHOUT_VERSIONS = "0004"  # the revision before it
LANES = "SELECT source, lane FROM outbox_events ORDER BY id"
APPEND = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT 'c1', 'collection.updated', unnest(ARRAY['api', 'repair', 'backfill', 'api']), '{}'
"""


async def test_before_it_this_release_neither_serves_nor_applies_and_says_what_to_run(
    database_url: str, settings: Settings, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", "as it is")
    assert alembic(database_url, "downgrade", WITHOUT_VERSIONS).returncode == 0

    status, body = await readiness(settings)
    check = body["checks"]["migrations"]
    assert (status, check["ok"]) == (503, False)
    assert f"this version needs {REVISION}: run alembic upgrade head" in check["what_to_do"]

    event_id = await append_raw(seeded, "c1")
    with capture_logs() as lines:
        await Heart(engine, "host:1").beat()
        await Drainer(engine).drain("sweep")
    assert [(line["event"], line["pending_unknown_version"]) for line in lines[:1]] == [
        ("worker_heartbeat", 0)
    ]
    assert {line["hint"] for line in lines[1:]} == {LACKS_TABLES}
    assert event_id in await waiting(seeded)


async def test_what_is_pending_stays_in_its_lane_and_what_is_later_is_not_left_to_workers_without_it(
    database_url: str, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    assert alembic(database_url, "downgrade", WITHOUT_VERSIONS).returncode == 0
    await seeded.execute(APPEND)
    before = await seeded.fetch(LANES)
    assert alembic(database_url, "upgrade", "head").returncode == 0
    assert await seeded.fetch(LANES) == before
    assert [row["lane"] for row in before] == [0, 1, 2, 0]
    assert await seeded.fetchval("SELECT bool_and(schema_version = 1) FROM outbox_events")

    await seeded.execute("DELETE FROM outbox_events")
    await set_collection(engine, "c1", "as it is")
    await outcomes(engine)
    event_id = await append_later(seeded, "c1")
    refused = alembic(database_url, "downgrade", WITHOUT_VERSIONS)
    assert refused.returncode != 0
    assert "1 pending events are of a later version than 1" in refused.stderr
    assert event_id in await waiting(seeded)
    assert await settle_knowing(engine, 2) == {event_id: Outcome.APPLIED}
    assert alembic(database_url, "downgrade", WITHOUT_VERSIONS).returncode == 0


async def test_what_the_release_before_left_has_every_column_that_is_used_once_it_is_migrated(
    databases: Databases, tmp_path: Path
) -> None:
    """Other tests' databases are made from the schema of this release, and hide what no migration adds."""
    url = databases.create_empty(f"left_{tmp_path.name}")
    before = BEFORE.unpack(tmp_path) / "migrations" / "legacy_schema.sql"
    async with connected(url) as connection:
        await connection.execute(before.read_text(encoding="utf-8"))
        await connection.execute("RESET ALL")
        assert alembic(url, "upgrade", "head").returncode == 0
        assert (await columns(connection)).objections == []
