import asyncpg
import pytest

from tests.legacy_rows import seed


@pytest.fixture(autouse=True)
async def _seeded(sql: asyncpg.Connection) -> None:
    await seed(sql)
