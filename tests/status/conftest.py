import asyncpg
import pytest

from tests.legacy_rows import seed
from tests.security.conftest import urls as urls  # noqa: PLC0414 - a fixture of ours, too


@pytest.fixture
async def sql(sql: asyncpg.Connection) -> asyncpg.Connection:
    """With an owner and three projects in the database."""
    await seed(sql)
    return sql
