"""A database with the recorded seed, for a process that is to be attacked."""

import asyncpg
import pytest

from tests.api.recording import seed


@pytest.fixture
async def seeded(sql: asyncpg.Connection) -> asyncpg.Connection:
    await seed(sql)
    return sql
