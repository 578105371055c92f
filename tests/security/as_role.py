"""Connections as a login in one of the roles of `deploy/roles.sql`."""

import contextlib
from collections.abc import AsyncIterator

import asyncpg
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.database import create_engine
from shared.settings import Settings


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
