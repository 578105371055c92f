"""What is said of a fault names what is missing, whichever library brought it, and quotes nobody."""

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.advice import LACKS_TABLES, advice_on
from shared.postgres.database import driver_connection
from tests.security.as_role import engine_of
from tests.security.conftest import urls as urls  # noqa: PLC0414 - a fixture

RAISE = "DO $$ BEGIN RAISE EXCEPTION 'a secret' USING ERRCODE = '{}'; END $$"
SAID = {
    "SELECT 1 FROM nowhere": LACKS_TABLES,
    "SELECT tags FROM project_collections": "(permission denied for table project_collections)",
    RAISE.format("42501"): "lacks a right (insufficient privilege)",
    RAISE.format("P0001"): "refuses it (P0001: raise",
    RAISE.format("55000"): "refuses it (55000: object not in prerequisite state",
    RAISE.format("42601"): None,
    RAISE.format("40001"): None,
}


async def refused(engine: AsyncEngine, statement: str) -> tuple[Exception, Exception]:
    """Return what becomes of a statement by the driver, and through SQLAlchemy."""
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as by_sqlalchemy:
            await connection.execute(text(statement))
    async with driver_connection(engine) as own:
        with pytest.raises(asyncpg.PostgresError) as by_driver:
            await own.execute(statement)
    return by_driver.value, by_sqlalchemy.value


@pytest.mark.parametrize(
    ("statement", "said"),
    SAID.items(),
    ids=["no table", "no right", "a right, by somebody", "raised", "a state", "a defect", "a conflict"],
)
async def test_each_fault_has_the_sentence_that_helps_whoever_brought_it(
    statement: str, said: str | None, urls: dict[str, str]
) -> None:
    async with engine_of(urls["api"]) as engine:
        by_driver, by_sqlalchemy = await refused(engine, statement)
    for error in (by_driver, by_sqlalchemy):
        advice = advice_on(error)
        assert advice is None if said is None else said in str(advice)
        assert "a secret" not in str(advice)
