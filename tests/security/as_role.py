"""Connections as a login in one of the roles of `deploy/roles.sql`."""

import contextlib
import secrets
from collections.abc import AsyncIterator

import asyncpg
from pydantic import SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.database import create_engine
from shared.settings import Settings
from tests.forked import ROOT

ROLES_SQL = (ROOT / "deploy" / "roles.sql").read_text(encoding="utf-8")
FIRST_WHOSE_PUBLIC_CREATES_NOTHING = 15
ROLES = ("api", "worker", "operator", "reader", "scaler")


async def make_logins(sql: asyncpg.Connection, url: str, roles_sql: str | None = None) -> dict[str, str]:
    """Set a database up as the file says: run it, create logins, run it again; return each role's URL."""
    roles_sql = roles_sql or ROLES_SQL
    await sql.execute(roles_sql)
    if sql.get_server_version().major < FIRST_WHOSE_PUBLIC_CREATES_NOTHING:
        await sql.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # the head of the file says so
    urls = {}
    for role in ROLES:
        login, password = f"sync_{role}_{secrets.token_hex(4)}", secrets.token_hex(16)
        await sql.execute(f"CREATE ROLE {login} LOGIN PASSWORD '{password}' IN ROLE collection_sync_{role}")
        own = make_url(url).set(username=login, password=password)
        urls[role] = own.render_as_string(hide_password=False)
    await sql.execute(roles_sql)
    return urls


@contextlib.asynccontextmanager
async def engine_of(url: str) -> AsyncIterator[AsyncEngine]:
    settings = Settings(database_url=SecretStr(url), redis_url=SecretStr("redis://127.0.0.1:1"))
    engine = create_engine(settings, application_name="test", pool_size=5, statement_timeout_seconds=10)
    yield engine
    await engine.dispose()


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()
