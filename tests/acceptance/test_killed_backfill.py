"""A backfill and its worker, both killed again and again, while users write."""

import asyncio
import json
import random
from collections import Counter

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.backfill.rows import fix_chunk_size, insert_many
from tests.drift import drained, drift
from tests.legacy_rows import seed, set_collection
from tests.processes import environment, running, running_worker
from tests.race import freezing

COLLECTIONS = 600
CHUNK_ROWS = 37
RATE = 1_000
KILLS = 4

REMEMBER_EVENTS = """
    CREATE TABLE remembered (aggregate_id text, source text);
    CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO remembered VALUES (NEW.aggregate_id, NEW.source); RETURN NULL; END $$;
    CREATE TRIGGER remember AFTER INSERT ON outbox_events FOR EACH ROW EXECUTE FUNCTION remember();
"""
# Who was killed counts as the run's driver for some seconds more.
BE_SILENT = "UPDATE backfill_runs SET heartbeat_at = heartbeat_at - interval '3 s'"
BACKFILL = ["-m", "worker.backfill"]


async def write_until(stopped: asyncio.Event, engine: AsyncEngine) -> None:
    """Change and delete collections as users do, at random."""
    dice = random.Random(11)  # noqa: S311 - users that can be repeated
    while not stopped.is_set():
        collection_id = f"c-{dice.randrange(1, COLLECTIONS):07}"
        await set_collection(engine, collection_id, "live", is_active=dice.random() < 0.7)
        await asyncio.sleep(0.02)


async def test_a_backfill_and_a_worker_that_are_killed_again_and_again_leave_nothing_out_and_nothing_wrong(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str, redis_url: str
) -> None:
    await seed(sql)
    await insert_many(sql, "c", COLLECTIONS)
    await fix_chunk_size(sql, CHUNK_ROWS)
    await sql.execute(REMEMBER_EVENTS)
    await freezing.install_gate(sql, f"c-{COLLECTIONS:07}")
    env = environment(database_url, redis_url)
    stopped = asyncio.Event()
    writing = asyncio.create_task(write_until(stopped, engine))
    dice = random.Random(7)  # noqa: S311 - a storm that can be repeated
    command = [*BACKFILL, "--rate", str(RATE)]
    async with freezing.frozen(sql, freezing.GATE):  # so that it is not over too soon
        for number in range(KILLS):
            async with running_worker(env) as worker:
                with running(command, env) as backfill:
                    await backfill.wait_for("backfill_started")
                    await asyncio.sleep(dice.uniform(0, 0.15))
                    (worker if number % 2 else backfill).kill()
                    await asyncio.sleep(0.05)
            await sql.execute(BE_SILENT)
            command = [*BACKFILL, "--resume"]
            await fix_chunk_size(sql, dice.randrange(20, 60))
    assert await sql.fetchval("SELECT status FROM backfill_runs") == "running"

    async with running_worker(env):
        with running([*command, "--json"], env) as backfill:
            assert await backfill.exit_code() == 0, backfill.output
        stopped.set()
        await writing
        await drained(sql)
    result = json.loads(backfill.lines[-1])
    assert result["processed"] == COLLECTIONS == result["enqueued"] + result["skipped"]
    events = await sql.fetch("SELECT aggregate_id FROM remembered WHERE source = 'backfill'")
    counts = Counter(row["aggregate_id"] for row in events)
    assert set(counts.values()) == {1}
    assert len(counts) == result["enqueued"]
    assert await drift(sql) == []
