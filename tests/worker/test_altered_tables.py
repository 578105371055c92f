"""Tables that are altered between two statements: what was prepared before is tried again."""

import asyncio
import contextlib

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from tests.backfill.driving import being_driven, current, until_row, until_waiting
from tests.backfill.rows import enqueued, fix_chunk_size, insert_many
from tests.legacy_rows import set_collection, target_rows
from tests.race import freezing
from worker.drainer import Drainer

CURSOR_MOVED = "backfill: cursor moved"


async def test_a_worker_whose_outbox_was_altered_tries_the_batch_again(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    drainer = Drainer(engine)
    await set_collection(engine, "c1", "before")
    await drainer.drain("sweep")
    await sql.execute("ALTER TABLE outbox_events ALTER COLUMN aggregate_id TYPE varchar(500)")
    await sql.execute("ALTER TABLE project_collections ALTER COLUMN research_context TYPE varchar(4000)")
    await set_collection(engine, "c1", "after")
    with capture_logs() as lines:
        while await sql.fetchval("SELECT count(*) FROM outbox_events"):
            await drainer.drain("sweep")  # as each second
    failed = [line for line in lines if line["event"] == "batch_failed"]
    assert {(line["error"], line["log_level"]) for line in failed} == {
        ("InvalidCachedStatementError", "warning")
    }
    assert [row["research_context"] for row in await target_rows(sql, "c1")] == ["after"]
    assert await sql.fetchval("SELECT count(*) FROM outbox_dead_letters") == 0


async def test_a_backfill_whose_tables_are_altered_meanwhile_goes_on(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    await insert_many(sql, "c", 30)
    await fix_chunk_size(sql, 10)
    await freezing.install_for_backfill(sql)
    async with contextlib.AsyncExitStack() as stack:
        async with freezing.frozen(sql, CURSOR_MOVED):
            await stack.enter_async_context(being_driven(engine))
            await freezing.arrived(sql, CURSOR_MOVED)
            altering = asyncio.create_task(alter(database_url))  # it waits for the chunk's end
            await until_waiting(sql, sessions=2)
        await altering
        await until_row(sql, "status = 'finished'")
    assert set((await enqueued(sql)).values()) == {1}
    assert (await current(engine)).enqueued == 30


async def alter(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("ALTER TABLE backfill_runs ALTER COLUMN end_key TYPE varchar(500)")
    await connection.close()
