import asyncio

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.database import driver_connection
from tests.draining import run_once
from tests.legacy_rows import set_collection
from tests.race import freezing


async def test_a_connection_whose_borrower_was_cancelled_is_not_lent_again(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await freezing.install(sql)
    await set_collection(engine, "c1")
    async with driver_connection(engine) as connection:
        pid = connection.get_server_pid()
    async with freezing.frozen(sql, "guard: claimed, before the guard"):
        batch = asyncio.create_task(run_once(engine))
        await freezing.arrived(sql, "guard: claimed, before the guard")
        batch.cancel()
        await asyncio.wait([batch])
    async with driver_connection(engine) as connection:
        assert connection.get_server_pid() != pid
        async with connection.transaction():
            assert await connection.fetchval("SELECT count(*) FROM outbox_events") == 1
