import asyncpg
import pytest

from tests.legacy_rows import seed


@pytest.fixture
async def seeded(sql: asyncpg.Connection) -> asyncpg.Connection:
    await seed(sql)
    return sql
