import asyncpg
import pytest

from tests.legacy_rows import seed


@pytest.fixture
async def seeded(sql: asyncpg.Connection) -> asyncpg.Connection:
    """The plain connection, with three projects in the database."""
    await seed(sql)
    return sql
