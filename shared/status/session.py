"""A session that changes nothing, locks nothing for long and reads by indexes; and reading in parts."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.planner import STATUS, for_transaction
from shared.postgres.database import create_engine
from shared.postgres.faults import (
    INSUFFICIENT_PRIVILEGE,
    LOCK_NOT_AVAILABLE,
    NOT_MIGRATED,
    hides_rows,
    sqlstate,
)
from shared.settings import DatabaseSettings
from shared.verdict.facts import LOCKED

STATEMENT_TIMEOUT_SECONDS = 5  # for a server that hardly answers

ON_ONE_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
# A session that locks one of our tables is to be named, not waited for.
CAREFULLY = text(for_transaction(STATUS | {"lock_timeout": "100ms"}))
WHY = {
    LOCK_NOT_AVAILABLE: LOCKED,
    INSUFFICIENT_PRIVILEGE: "this login may not see it",
} | dict.fromkeys(NOT_MIGRATED, "a table or column is missing")

Fact = TypeVar("Fact")


@contextlib.asynccontextmanager
async def engine_of(settings: DatabaseSettings) -> AsyncIterator[AsyncEngine]:
    """Lend an engine with one connection, to any server that answers."""
    engine = create_engine(
        settings,
        application_name="collection-sync status",
        pool_size=1,
        statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
        checks_sequences=False,
        checks_writable=False,
    )
    try:
        yield engine
    finally:
        await engine.dispose()


@contextlib.asynccontextmanager
async def looking(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Lend a connection in a READ ONLY transaction on one snapshot."""
    async with engine.connect() as connection:
        await connection.execute(ON_ONE_SNAPSHOT)
        await connection.execute(CAREFULLY)
        yield connection


class Parts:
    """Reads, on a connection that is `looking`, in parts that may each remain unknown without the others."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self.unknown: dict[str, str] = {}

    async def read(self, name: str, look: Callable[[AsyncConnection], Awaitable[Fact]]) -> Fact | None:
        """Return what the look returns; None, and why under that name, where it may not, or has to wait."""
        try:
            async with self._connection.begin_nested():
                return await look(self._connection)
        except (DBAPIError, asyncpg.PostgresError) as error:
            why = "row-level security hides rows" if hides_rows(error) else WHY.get(sqlstate(error) or "")
            if why is None:
                raise
            self.unknown[name] = why
            return None
