import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.database import create_engine, driver_connection
from shared.postgres.faults import is_environmental, is_transient, sqlstate
from shared.settings import DatabaseSettings
from worker.relay.faults import is_row_fault

RAISE = "DO $$ BEGIN RAISE EXCEPTION 'made up' USING ERRCODE = '{code}'; END $$"


TOO_LONG = """
    INSERT INTO kept SELECT 'c', 1, left(string_agg(md5(n::text), ''), {}) FROM generate_series(1, 999) AS n
"""


async def raised(engine: AsyncEngine, statement: str) -> DBAPIError:
    with pytest.raises(DBAPIError) as caught:
        async with engine.begin() as connection:
            await connection.execute(text(statement))
    return caught.value


@pytest.mark.parametrize(
    "code", ["08006", "28P01", "40001", "40P01", "55P03", "57014", "57P01", "57P03", "53300"]
)
async def test_faults_that_pass_by_themselves_are_transient_and_no_row_s_fault(
    engine: AsyncEngine, code: str
) -> None:
    error = await raised(engine, RAISE.format(code=code))
    assert (sqlstate(error), is_transient(error), is_row_fault(error)) == (code, True, False)


@pytest.mark.parametrize("code", ["22007", "22P02", "23503", "23505", "44000", "P0001"])
async def test_faults_of_values_are_a_row_s_fault(engine: AsyncEngine, code: str) -> None:
    error = await raised(engine, RAISE.format(code=code))
    assert (sqlstate(error), is_transient(error), is_row_fault(error)) == (code, False, True)


@pytest.mark.parametrize(
    "code", ["0A000", "2200H", "23502", "23514", "42501", "42703", "42P01", "54000", "55000", "XX000"]
)
async def test_faults_of_the_surroundings_are_neither(engine: AsyncEngine, code: str) -> None:
    error = await raised(engine, RAISE.format(code=code))
    assert (is_transient(error), is_row_fault(error), is_environmental(error)) == (False, False, True)


@pytest.mark.parametrize(
    ("statement", "is_rows"),
    [
        ("INSERT INTO kept VALUES (NULL, 1, 'x')", True),  # a column that a batch writes
        ("INSERT INTO kept VALUES ('c', NULL, 'x')", False),
        ("INSERT INTO kept VALUES ('c', -1, 'x')", True),  # a check by its name
        ("INSERT INTO parts VALUES (2)", False),  # no partition
        (TOO_LONG.format(2_700), True),  # of which the index is named
        (TOO_LONG.format(30_000), True),  # of which it is not
    ],
)
async def test_what_an_error_names_tells_a_row_s_fault_from_one_of_the_schema(
    statement: str, engine: AsyncEngine, sql: asyncpg.Connection, *, is_rows: bool
) -> None:
    await sql.execute("""
        CREATE TABLE kept (collection_id text NOT NULL, extra int NOT NULL CHECK (extra > 0), long text);
        CREATE INDEX ON kept (long);
        CREATE TABLE parts (id int) PARTITION BY LIST (id);
    """)
    error = await raised(engine, statement)
    assert (is_row_fault(error), is_environmental(error)) == (is_rows, not is_rows)
    with pytest.raises(asyncpg.PostgresError) as caught:
        await sql.execute(statement)
    assert (is_row_fault(caught.value), is_environmental(caught.value)) == (is_rows, not is_rows)


async def end(sql: asyncpg.Connection, pid: int) -> None:
    """End the session, wait until it has ended, and let this loop hear of it, whoever passes it on."""
    assert await sql.fetchval("SELECT pg_terminate_backend($1, 60000)", pid)
    for _ in range(20):
        await asyncio.sleep(0.005)


async def test_a_connection_cut_by_the_server_is_transient(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    async with engine.connect() as connection:
        pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        await end(sql, pid)
        with pytest.raises(DBAPIError) as caught:
            await connection.execute(text("SELECT 1"))
    assert is_transient(caught.value)


@asynccontextmanager
async def never_closing(url: str) -> AsyncIterator[str]:
    """Stand between us and PostgreSQL, and keep to ourselves that it closed the connection."""
    server = urlsplit(url)
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(server.hostname, server.port)
        writers.extend((writer, ours))
        tasks.update(
            {asyncio.create_task(pass_on(reader, ours)), asyncio.create_task(pass_on(theirs, writer))}
        )

    proxy = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    try:
        yield urlunsplit(server._replace(netloc=server.netloc.replace(f":{server.port}", f":{port}")))
    finally:
        for task in tasks:
            task.cancel()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
        proxy.close()


async def test_a_connection_that_the_server_is_just_ending_is_transient(
    database_url: str, sql: asyncpg.Connection
) -> None:
    async with never_closing(database_url) as url:
        settings = DatabaseSettings(database_url=SecretStr(url))
        engine = create_engine(settings, application_name="cut", pool_size=1, statement_timeout_seconds=5)
        async with driver_connection(engine) as driver:
            await end(sql, driver.get_server_pid())
            with pytest.raises(asyncpg.InternalClientError) as raw:
                await driver.execute("SELECT 1")
            driver.terminate()
        async with engine.connect() as connection:
            pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            await end(sql, pid)
            with pytest.raises(DBAPIError) as wrapped:
                await connection.execute(text("SELECT 1"))
            await connection.invalidate()
        await engine.dispose()
    assert is_transient(raw.value)
    assert is_transient(wrapped.value)


@pytest.mark.parametrize("is_told", [True, False], ids=["closed", "about to be closed"])
async def test_a_connection_cut_while_it_is_opened_is_transient(
    database_url: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, *, is_told: bool
) -> None:
    """As a pooler does whose server has just gone; SQLAlchemy passes the dialect's own error on then."""

    async def ask_too_late(connection: asyncpg.Connection, _session: object) -> None:
        await end(sql, connection.get_server_pid())
        await connection.execute("SELECT 1")

    monkeypatch.setattr("shared.postgres.pooler.require_in_force", ask_too_late)
    async with never_closing(database_url) as way:
        settings = DatabaseSettings(database_url=SecretStr(database_url if is_told else way))
        engine = create_engine(settings, application_name="cut", pool_size=1, statement_timeout_seconds=5)
        with pytest.raises(Exception, match=r".") as caught:
            async with driver_connection(engine):
                pass
        await engine.dispose()
    assert is_transient(caught.value), repr(caught.value)


def test_a_refused_connection_is_transient() -> None:
    assert is_transient(ConnectionRefusedError())
    assert not is_transient(ValueError())
