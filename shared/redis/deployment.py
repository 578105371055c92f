"""Whose rings these are: processes of one database, which may share a Redis with those of another."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Self

import asyncpg
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.migration_state import VERSION_TABLE
from shared.postgres.database import create_engine, driver_connection
from shared.postgres.pooler import PoolerError
from shared.settings import DatabaseSettings

Lane = Literal["live", "bulk"]

LEARN_SECONDS = 2.0
FRESH_SECONDS = 5.0
# What keeps a process from learning it: PostgreSQL is away, not migrated, or lets us not in or not read it.
UNLEARNED = (
    SQLAlchemyError,
    AsyncAdapt_asyncpg_dbapi.Error,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    PoolerError,
    OSError,
    TimeoutError,
)

# What was drawn at the migration goes with a dump; where the database lies does not. Of a copy of the whole
# server's files nothing here detects it: `worker.preflight` does, and shows how to draw anew.
READ = f"""
    SELECT left(encode(sha256(convert_to(
        concat_ws(' ', drawn.database_id, %s, pg_database.oid), 'UTF8'
    )), 'hex'), 16)
    FROM {VERSION_TABLE} AS drawn, pg_database
    WHERE pg_database.datname = current_database()
    ORDER BY drawn.database_id
    LIMIT 1
"""  # noqa: S608 - a constant
OF_SERVER = "(SELECT system_identifier FROM pg_control_system())"


@dataclass(frozen=True, slots=True)
class Names:
    """What the processes of one database call their things in Redis."""

    identity: str  # 16 hexadecimal digits

    @property
    def queue(self) -> str:
        return f"collection_sync:{self.identity}:queue"

    @property
    def job_id(self) -> str:
        """The one job, arq's twin of a ring: nobody else's may be called so on a Redis that is shared."""
        return f"collection_sync:{self.identity}:drain"

    def channel(self, lane: Lane) -> str:
        """Where rings are published: of users' writes, or of a backfill's or a repair's events."""
        return f"collection_sync:{self.identity}:wake" + ("" if lane == "live" else "_bulk")

    @property
    def channels(self) -> tuple[str, str]:
        return self.channel("live"), self.channel("bulk")


class Deployment:
    """What this process knows of the database's identity; until it does, nothing can be rung.

    It may change under a process: a logical switch-over leads to another server.
    """

    def __init__(self, read: Callable[[], Awaitable[str]]) -> None:
        self._read = read
        self._learned_at = 0.0  # monotonic
        self._is_known = asyncio.Event()
        self.known: Names | None = None
        self.obstacle: Exception | None = None  # what kept it from learning, the last time

    @classmethod
    def of(cls, engine: AsyncEngine) -> Self:
        """Make one that asks over this engine, with one connection at a time."""

        async def read() -> str:
            async with driver_connection(engine) as connection:
                return await read_identity(connection)

        return cls(read)

    async def names(self) -> Names:
        """Return the names, and learn them first where need be.

        Raises:
            one of UNLEARNED: not now.

        """
        return self.known or await self.learn()

    async def named(self) -> Names:
        """Return the names as soon as another task has learned them."""
        while self.known is None:
            await self._is_known.wait()
        return self.known

    async def keep_up(self) -> bool:
        """Learn them again where that is a while ago, and return whether they have changed.

        Raises:
            one of UNLEARNED: what was known stays.

        """
        if time.monotonic() - self._learned_at < FRESH_SECONDS:
            return False
        self._learned_at = time.monotonic()  # also where it fails: who rings must not wait each time
        before = self.known
        return await self.learn() != before

    async def learn(self) -> Names:
        """Ask the database, in one round trip.

        Raises:
            one of UNLEARNED: what was known stays.

        """
        try:
            async with asyncio.timeout(LEARN_SECONDS):
                self.known = Names(await self._read())
        except UNLEARNED as error:
            self.obstacle = error
            raise
        self.obstacle = None
        self._learned_at = time.monotonic()
        self._is_known.set()
        return self.known


async def read_identity(connection: asyncpg.Connection) -> str:
    """Return the database's identity.

    Raises:
        asyncpg.PostgresError: it is not migrated, or this role may not read it.

    """
    # A transaction that is under way must outlive the first try.
    apart = connection.transaction() if connection.is_in_transaction() else contextlib.nullcontext()
    try:
        async with apart:
            identity = await connection.fetchval(READ % OF_SERVER)
    except asyncpg.PostgresError:  # where it is the table's, the next says so
        identity = await connection.fetchval(READ % "NULL")
    if identity is None:
        msg = f"{VERSION_TABLE} is empty"
        raise asyncpg.UndefinedTableError(msg)
    return str(identity)


async def learned_names(settings: DatabaseSettings) -> Names:
    """Return the names over a connection of its own.

    Raises:
        one of UNLEARNED: not now.

    """
    engine = create_engine(
        settings,
        application_name="collection-sync identity",
        pool_size=1,
        statement_timeout_seconds=5,
        checks_sequences=False,
        checks_writable=False,
    )
    try:
        return await Deployment.of(engine).learn()
    finally:
        await engine.dispose()
