"""What every session relies on is in force, whatever the database's or the role's defaults are."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.database import create_engine, driver_connection, refuse_wrong_sequences
from shared.postgres.pooler import UnfitServerError
from shared.settings import Settings

# What others may have set for the whole database or for a role, and what must be in force all the same.
DEFAULTS = {
    "default_transaction_isolation": ("'serializable'", "transaction_isolation", "read committed"),
    "standard_conforming_strings": ("off", "standard_conforming_strings", "on"),
    "row_security": ("on", "row_security", "off"),
    "statement_timeout": ("'1s'", "statement_timeout", "30s"),
    "idle_in_transaction_session_timeout": ("'1ms'", "idle_in_transaction_session_timeout", "10s"),
    "idle_session_timeout": ("'1ms'", "idle_session_timeout", "0"),
    "transaction_timeout": ("'1s'", "transaction_timeout", "0"),
    "timezone": ("'Asia/Kolkata'", "timezone", "UTC"),
    "client_encoding": ("'LATIN1'", "client_encoding", "UTF8"),
}


@asynccontextmanager
async def default(sql: asyncpg.Connection, name: str, value: str) -> AsyncIterator[None]:
    """Set a default of the test's database."""
    database = await sql.fetchval("SELECT current_database()")
    await sql.execute(f'ALTER DATABASE "{database}" SET {name} = {value}')
    yield
    await sql.execute(f'ALTER DATABASE "{database}" RESET {name}')


@pytest.mark.parametrize(("name", "others"), DEFAULTS.items(), ids=DEFAULTS)
async def test_what_others_set_for_the_database_is_not_in_force(
    name: str, others: tuple[str, str, str], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    value, shown, expected = others
    if name == "transaction_timeout" and sql.get_server_version().major < 17:
        pytest.skip("this server has no transaction_timeout")
    async with default(sql, name, value):
        async with driver_connection(engine) as connection, connection.transaction():
            assert await connection.fetchval(f"SHOW {shown}") == expected
        async with engine.begin() as connection_of_sqlalchemy:
            assert (await connection_of_sqlalchemy.execute(text(f"SHOW {shown}"))).scalar_one() == expected


async def write_by_the_driver(engine: AsyncEngine) -> None:
    async with driver_connection(engine) as connection, connection.transaction():
        await connection.execute("CREATE TABLE written (one int)")


async def write_by_sqlalchemy(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE written (one int)"))


Write = Callable[[AsyncEngine], Awaitable[None]]
WRITES = [write_by_the_driver, write_by_sqlalchemy]


@pytest.mark.parametrize("write", WRITES)
async def test_a_server_that_takes_no_writes_lends_no_connection_and_one_cured_at_once(
    write: Write, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    async with default(sql, "default_transaction_read_only", "on"):
        for _ in range(3):
            with pytest.raises(UnfitServerError, match="PostgreSQL is read-only"):
                await write(engine)
    await write(engine)


@pytest.mark.parametrize("write", WRITES)
async def test_a_database_whose_sequences_are_wrong_lends_no_connection_and_one_cured_at_once(
    write: Write, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute("ALTER SEQUENCE outbox_events_id_seq CACHE 50 CYCLE")
    for _ in range(3):
        with pytest.raises(UnfitServerError, match="outbox_events_id_seq has CACHE 50") as refused:
            await write(engine)
    _, _, cure = str(refused.value).partition("this SQL: ")
    await sql.execute(cure)
    await write(engine)


async def test_who_mends_sequences_is_lent_a_connection_all_the_same(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    await sql.execute("ALTER SEQUENCE outbox_events_id_seq CACHE 50")
    engine = create_engine(
        settings,
        application_name="test",
        pool_size=1,
        statement_timeout_seconds=30,
        checks_sequences=False,
    )
    await write_by_the_driver(engine)
    await engine.dispose()


async def test_connections_from_before_are_lent_no_more_once_sequences_are_found_wrong(
    engine: AsyncEngine, settings: Settings, sql: asyncpg.Connection
) -> None:
    other = create_engine(settings, application_name="test", pool_size=2, statement_timeout_seconds=30)
    for each in (engine, other):
        async with each.connect(), each.connect():
            pass
    await refuse_wrong_sequences(engine, other)
    await sql.execute("ALTER SEQUENCE outbox_events_id_seq CACHE 50")
    async with other.connect() as in_use:
        for _ in range(2):  # the second time there is none from before
            with pytest.raises(UnfitServerError):
                await refuse_wrong_sequences(engine, other)
        await in_use.execute(text("SELECT 1"))
    for each in (engine, other, engine, other):
        with pytest.raises(UnfitServerError):
            await write_by_the_driver(each)
    await sql.execute("ALTER SEQUENCE outbox_events_id_seq CACHE 1")
    await refuse_wrong_sequences(engine, other)
    await write_by_the_driver(other)
    await other.dispose()


@pytest.mark.parametrize("write", WRITES)
async def test_a_connection_that_takes_no_writes_any_more_is_thrown_away(
    write: Write, settings: Settings
) -> None:
    """As those are that led to a primary which was demoted under them."""
    engine = create_engine(settings, application_name="test", pool_size=1, statement_timeout_seconds=30)
    async with engine.connect() as connection:
        await connection.execute(text("SET default_transaction_read_only = on"))
        await connection.commit()
    with pytest.raises((asyncpg.ReadOnlySQLTransactionError, DBAPIError)):
        await write(engine)
    await write(engine)
    await engine.dispose()


async def test_a_search_path_that_shows_a_table_twice_lends_no_connection_and_one_cured_at_once(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute("CREATE SCHEMA decoy; CREATE TABLE decoy.collections (LIKE public.collections)")
    async with default(sql, "search_path", "decoy, public"):
        with pytest.raises(
            UnfitServerError, match="a table collections in each of the schemas decoy and public"
        ):
            await write_by_the_driver(engine)
    await write_by_the_driver(engine)
