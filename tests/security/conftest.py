"""A database under `deploy/roles.sql`, and a login in each of its roles."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from tests.security.as_role import make_logins


@pytest.fixture
async def urls(database_url: str, sql: asyncpg.Connection) -> AsyncIterator[dict[str, str]]:
    """The database's URL for a login in each role."""
    urls = await make_logins(sql, database_url)
    yield urls
    for url in urls.values():
        await sql.execute(f"DROP ROLE {make_url(url).username}")
