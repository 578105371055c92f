import asyncio

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import Settings
from tests.draining import drain
from tests.drift import drained, drift
from tests.legacy_rows import set_collection
from tests.processes import HANG_SECONDS, environment, running_worker
from tests.race import freezing

COLLECTIONS = 8
WORKERS_SESSIONS = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ 'worker'
"""
WORKERS_POINTS = [
    point
    for point in freezing.NUMBERS
    if point.startswith(("guard", "target", "acknowledge", "commit: of a batch"))
]

COUNT_TARGET_WRITES = """
    CREATE TABLE target_writes (collection_id text);
    CREATE FUNCTION count_write() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO target_writes VALUES (coalesce(NEW.collection_id, OLD.collection_id));
        RETURN NULL;
    END $$;
    CREATE TRIGGER count_write AFTER INSERT OR UPDATE OR DELETE ON project_collections
        FOR EACH ROW EXECUTE FUNCTION count_write();
"""


@pytest.fixture
def env(settings: Settings) -> dict[str, str]:
    return environment(settings.database_url.get_secret_value(), settings.redis_url.get_secret_value())


async def sessions_ended(sql: asyncpg.Connection) -> None:
    """Wait until PostgreSQL has ended the sessions of a killed worker."""
    async with asyncio.timeout(HANG_SECONDS):
        while await sql.fetchval(WORKERS_SESSIONS):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("point", WORKERS_POINTS)
async def test_a_worker_killed_at_this_point_loses_nothing_and_applies_nothing_twice(
    point: str, engine: AsyncEngine, sql: asyncpg.Connection, env: dict[str, str]
) -> None:
    await set_collection(engine, "gone", "there before the worker")
    await drain(engine)
    await freezing.install(sql)
    await sql.execute(COUNT_TARGET_WRITES)
    for number in range(COLLECTIONS):
        await set_collection(engine, f"c{number}", f"text {number}")
    await set_collection(engine, "gone", "deleted", is_active=False)

    async with freezing.frozen(sql, point), running_worker(env) as worker:
        await freezing.arrived(sql, point)
        worker.kill()
        assert await sql.fetchval("SELECT count(*) FROM outbox_events") == COLLECTIONS + 1

    await sessions_ended(sql)
    pending = await sql.fetchval("SELECT count(*) FROM outbox_events")
    async with running_worker(env) as worker:
        if pending or point != "commit: of a batch":  # a commit that was under way may succeed
            first_batch = await worker.wait_for("batch_settled")
            assert (
                first_batch["claimed"] == COLLECTIONS + 1
            )  # at its first look: there is no lease to wait for
        await drained(sql)
    assert await drift(sql) == []
    writes = dict(await sql.fetch("SELECT collection_id, count(*) FROM target_writes GROUP BY 1"))
    assert writes == {"gone": 1} | {f"c{number}": 1 for number in range(COLLECTIONS)}


async def test_what_a_killed_worker_had_claimed_is_free_again_although_its_statement_still_waits(
    engine: AsyncEngine, sql: asyncpg.Connection, env: dict[str, str]
) -> None:
    point = "guard: claimed, before the guard"
    await freezing.install(sql)
    await set_collection(engine, "c1", "claimed")
    async with freezing.frozen(sql, point), running_worker(env) as worker:
        await freezing.arrived(sql, point)
        worker.kill()
        async with asyncio.timeout(HANG_SECONDS):
            while not await sql.fetch("SELECT 1 FROM outbox_events FOR UPDATE SKIP LOCKED"):
                await asyncio.sleep(0.01)
