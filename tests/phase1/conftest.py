import asyncpg
import pytest

from tests.legacy_rows import seed
from tests.processes import environment


@pytest.fixture(autouse=True)
async def _seeded(sql: asyncpg.Connection) -> None:
    await seed(sql)


@pytest.fixture
def env(database_url: str, redis_url: str) -> dict[str, str]:
    return environment(database_url, redis_url)
