import asyncio

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.database import OUTDATED, KeptConnection, driver_connection
from tests.draining import run_once
from tests.legacy_rows import set_collection
from tests.processes import HANG_SECONDS
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


async def test_a_kept_connection_is_lent_again_until_it_is_closed_or_given_back(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    kept = KeptConnection(engine)

    async def lent_pid() -> int:
        async with kept.lent() as connection:
            return int(connection.get_server_pid())

    first = await lent_pid()
    assert await lent_pid() == first
    async with driver_connection(engine) as other:  # which the pool does not lend meanwhile
        assert other.get_server_pid() != first
    await sql.fetchval("SELECT pg_terminate_backend($1, 60000)", first)
    async with asyncio.timeout(HANG_SECONDS):
        while await lent_pid() == first:
            await asyncio.sleep(0.01)
    await kept.give_back()
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_a_kept_connection_is_not_lent_once_the_pool_is_outdated(engine: AsyncEngine) -> None:
    kept = KeptConnection(engine)
    async with kept.lent() as connection:
        first = connection.get_server_pid()
    engine.sync_engine.get_execution_options()[OUTDATED].set()
    async with driver_connection(engine):  # who borrows first opens all anew
        pass
    async with kept.lent() as connection:
        assert connection.get_server_pid() != first
    await kept.give_back()


async def test_a_kept_connection_whose_borrower_was_cancelled_is_not_lent_again(engine: AsyncEngine) -> None:
    kept = KeptConnection(engine)

    async def borrow() -> None:
        async with kept.lent() as connection:
            await connection.execute("SELECT pg_sleep(600)")

    async with kept.lent() as connection:
        first = connection.get_server_pid()
    borrowing = asyncio.create_task(borrow())
    await asyncio.sleep(0.05)
    borrowing.cancel()
    await asyncio.wait([borrowing])
    async with kept.lent() as connection:
        assert connection.get_server_pid() != first
    await kept.give_back()
