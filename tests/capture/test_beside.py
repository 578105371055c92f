"""The product with the capture on: API, backfill, audit and rollback, and an older release."""

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from api.main import create_app
from shared.postgres.database import create_engine
from shared.settings import Settings
from tests.api.clients import OWNER, create, started
from tests.api.recording import seed as seed_recorded
from tests.audit.pairs import audited
from tests.backfill.driving import backfilled
from tests.capture.conftest import Capture
from tests.capture.writers import bulk_insert, insert
from tests.databases import Databases
from tests.draining import drain
from tests.drift import drained, drift
from tests.legacy_rows import seed, set_collection
from tests.processes import environment
from tests.rollback.situations import rolled_back
from tests.versions.kept_releases import RELEASES, Release
from tests.versions.rotation import HOT
from tests.versions.test_mixed_releases import COLLECTIONS, Site

ROWS = 50
SOURCES = "SELECT array_agg(DISTINCT source ORDER BY source) FROM outbox_events"
CAPTURED = "SELECT count(*) FROM captured_writes"
CHANGE = "UPDATE collections SET description = 'past the outbox' WHERE collection_id = $1"


@pytest.mark.parametrize("mode", ["count", "append", "refuse"])
async def test_no_write_of_the_api_is_captured(
    mode: str, settings: Settings, sql: asyncpg.Connection, capture: Capture
) -> None:
    await sql.execute("DELETE FROM projects; DELETE FROM users")
    await seed_recorded(sql)
    await capture(mode)
    app: FastAPI = create_app(settings)
    async with started(app) as client:
        one = await create(client, description="as it is")
        for change in ({"description": "changed"}, {"collection_name": "other"}, {"description": "changed"}):
            answer = await client.put(one, json=change, headers=OWNER)
            assert answer.status_code == httpx.codes.OK, answer.text
        answer = await client.delete(one, headers=OWNER)
        assert answer.status_code == httpx.codes.OK
    assert await sql.fetchval(SOURCES) == ["api"]
    assert await sql.fetchval(CAPTURED) == 0


async def test_backfill_audit_and_rollback_do_their_work_and_are_not_captured(
    sql: asyncpg.Connection, engine: AsyncEngine, capture: Capture
) -> None:
    await sql.execute(bulk_insert(ROWS))  # from before
    await capture("append")
    run = await backfilled(engine)
    assert run.enqueued == ROWS
    await drain(engine)
    assert (await audited(engine)).verdict == "in_sync"
    assert await sql.fetchval(CAPTURED) == 0
    await sql.execute(CHANGE, "bulk000001")
    await sql.execute("UPDATE project_collections SET research_context = 'wrong' WHERE id % 2 = 0")
    assert (await audited(engine)).mismatched > 0
    await drain(engine)
    rolled = await rolled_back(engine)
    assert rolled.removed + rolled.kept == ROWS
    assert await sql.fetchval(CAPTURED) == 1
    await sql.execute(CHANGE, "bulk000002")
    await backfilled(engine)
    await drain(engine)
    assert await drift(sql) == []


async def test_a_captured_event_that_was_overtaken_changes_nothing(
    sql: asyncpg.Connection, engine: AsyncEngine, capture: Capture
) -> None:
    await sql.execute(insert("c1"))
    await capture("append")
    await sql.execute(CHANGE, "c1")
    await set_collection(engine, "c1", "by the API")
    await drain(engine)
    assert await drift(sql) == []


@pytest.mark.slow
@pytest.mark.wide
@pytest.mark.parametrize("release", RELEASES, ids=str)
async def test_an_older_release_applies_what_is_captured_and_is_not_captured_itself(
    release: Release, databases: Databases, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("release")
    url = databases.create_empty(f"captured_{directory.name}_{release.name.replace('.', '_')}")
    site = Site(environment(url, redis_url), release, release.unpack(directory))
    await site.run("-m", "alembic", "upgrade", "head")
    sql = await asyncpg.connect(url)
    await seed(sql)
    await sql.execute(COLLECTIONS, [*HOT])
    settings = Settings(database_url=SecretStr(url), redis_url=SecretStr(redis_url))
    engine = create_engine(settings, application_name="test", pool_size=2, statement_timeout_seconds=30)
    await site.run("-m", "worker.capture", "install", "--mode", "refuse")
    async with site.release("before", site.before):
        async with site.rotation.writing():
            await site.rotation.answered("before", 20)
            await site.run("-m", "worker.capture", "install", "--mode", "append")
            await sql.execute(CHANGE, HOT[0])
            await site.rotation.answered("before", 20)
        await sql.execute("UPDATE collections SET description = concat(description, 'past the outbox')")
        await drained(sql)
    assert site.rotation.wrong == []
    assert await drift(sql) == []
    captured = await sql.fetchval(CAPTURED)
    assert captured == 1 + await sql.fetchval("SELECT count(*) FROM collections WHERE is_active")
    await engine.dispose()
    await sql.close()
