import asyncpg
import pytest

from tests.legacy_rows import seed
from tests.processes import environment


@pytest.fixture
async def sql(sql: asyncpg.Connection) -> asyncpg.Connection:
    """With an owner and three projects in the database."""
    await seed(sql)
    return sql


@pytest.fixture
def env(database_url: str) -> dict[str, str]:
    """Without Redis: the command does not need it."""
    env = environment(database_url, "")
    del env["REDIS_URL"]
    return env
