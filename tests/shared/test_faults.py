import asyncio

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.faults import is_row_fault, is_transient, sqlstate

RAISE = "DO $$ BEGIN RAISE EXCEPTION 'made up' USING ERRCODE = '{code}'; END $$"


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


@pytest.mark.parametrize("code", ["21000", "22007", "22P02", "23502", "23503", "44000", "54000", "P0001"])
async def test_faults_of_values_are_a_row_s_fault(engine: AsyncEngine, code: str) -> None:
    error = await raised(engine, RAISE.format(code=code))
    assert (sqlstate(error), is_transient(error), is_row_fault(error)) == (code, False, True)


@pytest.mark.parametrize("code", ["42P01", "42501", "42703", "XX000", "0A000"])
async def test_faults_of_the_schema_are_neither(engine: AsyncEngine, code: str) -> None:
    error = await raised(engine, RAISE.format(code=code))
    assert (is_transient(error), is_row_fault(error)) == (False, False)


async def test_a_connection_cut_by_the_server_is_transient(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    async with engine.connect() as connection:
        pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        await sql.execute("SELECT pg_terminate_backend($1)", pid)
        await asyncio.sleep(0.2)
        with pytest.raises(DBAPIError) as caught:
            await connection.execute(text("SELECT 1"))
    assert is_transient(caught.value)


def test_a_refused_connection_is_transient() -> None:
    assert is_transient(ConnectionRefusedError())
    assert not is_transient(ValueError())
