"""A database under `deploy/roles.sql`, and a login in each of its roles."""

import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from tests.forked import ROOT

ROLES_SQL = (ROOT / "deploy" / "roles.sql").read_text(encoding="utf-8")
ROLES = ("api", "worker", "operator", "reader", "scaler")


@pytest.fixture
async def urls(database_url: str, sql: asyncpg.Connection) -> AsyncIterator[dict[str, str]]:
    """The database's URL for a login in each role, set up as the file says: run, create logins, run again."""
    await sql.execute(ROLES_SQL)
    suffix = secrets.token_hex(4)
    logins = {role: f"sync_{role}_{suffix}" for role in ROLES}
    passwords = {role: secrets.token_hex(16) for role in ROLES}
    for role, login in logins.items():
        await sql.execute(
            f"CREATE ROLE {login} LOGIN PASSWORD '{passwords[role]}' IN ROLE collection_sync_{role}"
        )
    await sql.execute(ROLES_SQL)
    url = make_url(database_url)
    yield {
        role: url.set(username=login, password=passwords[role]).render_as_string(hide_password=False)
        for role, login in logins.items()
    }
    for login in logins.values():
        await sql.execute(f"DROP ROLE {login}")
