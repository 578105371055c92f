"""Connections whose every statement passes a turnstile first, so that a test decides what comes next."""

from collections.abc import Awaitable, Callable
from typing import cast

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.twins.replacing import replaced
from worker.relay import apply, bury, claim

Turnstile = Callable[[str], Awaitable[None]]

# The legacy row may have said at each claim what the event says, and something else by now: where one row
# stands for all of them, it bears every event out.
BELIEVING_CLAIM = replaced(claim.CLAIM, ") AS is_borne_out", ") IS NOT NULL AS is_borne_out")
NAMES = {
    claim.CLAIM: "claim",
    BELIEVING_CLAIM: "claim",
    apply.GUARD: "guard",
    apply.RETIRE_ROWS: "retire",
    apply.UPDATE_ROWS: "update",
    apply.INSERT_ROWS: "insert",
    apply.OVERTAKEN: "overtaken",
    bury.BURY: "bury",
    bury.SUPERSEDE: "supersede",
    claim.ACKNOWLEDGE: "acknowledge",
}


async def open_turnstile(_step: str) -> None:
    """Let every statement pass."""


class SteppedConnection(asyncpg.Connection):  # type: ignore[misc]
    """asyncpg's own connection, but each statement awaits `before` first and `after` afterwards.

    Both get the statement's name. What they raise looks to the caller like a failure of the statement:
    in `before` it was never sent, in `after` it was carried out and its answer is lost.
    """

    before: Turnstile = staticmethod(open_turnstile)
    after: Turnstile = staticmethod(open_turnstile)

    async def fetch(self, query: str, *args: object, **options: object) -> object:
        return await self._step(query, super().fetch, *args, **options)

    async def fetchrow(self, query: str, *args: object, **options: object) -> object:
        return await self._step(query, super().fetchrow, *args, **options)

    async def fetchval(self, query: str, *args: object, **options: object) -> object:
        return await self._step(query, super().fetchval, *args, **options)

    async def execute(self, query: str, *args: object, **options: object) -> object:
        return await self._step(query, super().execute, *args, **options)

    async def _step(
        self, query: str, run: Callable[..., Awaitable[object]], *args: object, **options: object
    ) -> object:
        name = name_of(query)
        await self.before(name)
        answer = await run(query, *args, **options)
        await self.after(name)
        return answer


def name_of(statement: str) -> str:
    """Return what a schedule calls the statement: a step of the relay, or its own first words."""
    if statement in NAMES:
        return NAMES[statement]
    if statement.startswith("SET LOCAL lock_timeout"):
        return "lock timeout"
    words = statement.replace(";", "").split()[:3]
    return " ".join(word for word in words if not word.startswith("__asyncpg"))  # savepoints are numbered


def stepped_engine(database_url: str, connections: int = 1) -> AsyncEngine:
    """Make an engine that lends stepped connections and keeps them open."""
    return create_async_engine(
        database_url.replace("postgresql://", "postgresql+asyncpg://"),
        pool_size=connections,
        max_overflow=0,
        connect_args={"connection_class": SteppedConnection, "server_settings": {"timezone": "UTC"}},
    )


async def connection_of(engine: AsyncEngine) -> SteppedConnection:
    """Return the connection that an engine of one connection lends to everybody who asks."""
    async with engine.connect() as lent:
        return cast("SteppedConnection", (await lent.get_raw_connection()).driver_connection)
