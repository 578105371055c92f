"""All checks of one run: side by side, each bounded in time, and none fine that could not look."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from shared.postgres.database import create_engine, driver_connection
from shared.postgres.faults import reason, sqlstate
from shared.postgres.pooler import PoolerError
from shared.redis.client import open_redis
from shared.redis.faults import REDIS_ERRORS
from shared.settings import CommandSettings, Settings
from worker.preflight.check import Check, Found, judged, not_looked, stop, warn
from worker.preflight.checks import (
    capture,
    connections,
    defaults,
    doorbell,
    reads,
    replication,
    roles,
    schema,
    sequences,
    server,
    tables,
    vacuum,
)

CONNECTIONS_AT_ONCE = 2  # connections: there may be few left
CHECK_SECONDS = 2
CONNECT_SECONDS = 5.0
WHOLE_SECONDS = 15.0

OfDatabase = Callable[[asyncpg.Connection], Awaitable[Found]]
OfRedis = Callable[[Redis], Awaitable[Found]]
OfBoth = Callable[[Redis, asyncpg.Connection], Awaitable[Found]]

SERVER: Mapping[str, OfDatabase] = {
    "server": server.version,
    "writable": server.writable,
    "durability": server.durability,
    "clock": server.clock,
    "wraparound": server.wraparound,
    "connections": connections.connections,
    "pooler": connections.pooler,
    "defaults": defaults.defaults,
    "held_back": vacuum.held_back,
    "schema": schema.revision,
    "search_path": schema.search_path,
    "schemas": schema.schemas,
    "logins": roles.logins,
}
# These see nothing of a table that is not there.
TABLES: Mapping[str, OfDatabase] = {
    "roles": roles.grants,
    "row_security": roles.row_security,
    "other_writers": roles.other_writers,
    "sequences": sequences.behind,
    "ids": sequences.used_up,
    "columns": schema.columns,
    "indexes": schema.indexes,
    "kinds": tables.kinds,
    "unlogged": tables.unlogged,
    "unique_key": tables.unique_key,
    "unfilled": tables.unfilled,
    "constraints": tables.constraints,
    "deferrable": tables.deferrable,
    "children": tables.children,
    "triggers": tables.triggers,
    "capture": capture.capture,
    "reads": reads.reads,
    "rules": tables.rules,
    "collation": server.collation,
    "replica_identity": replication.replica_identity,
    "autovacuum": vacuum.autovacuum,
}
DATABASE = {**SERVER, **TABLES}
REDIS: Mapping[str, OfRedis] = {
    "redis_server": doorbell.server,
    "redis_rights": doorbell.rights,
    "redis_listening": doorbell.listening,
    "redis_memory": doorbell.memory,
    "redis_clock": doorbell.clock,
}
BOTH: Mapping[str, OfBoth] = {"redis_sharing": doorbell.sharing}
NO_REDIS = "REDIS_URL is not set here. API and worker need it; commands do without."
NO_TABLES = "not every table was found: see search_path"
UNREACHED_BOTH = "PostgreSQL or Redis was not reached"
START = "Start PostgreSQL, or correct DATABASE_URL"
UNREACHED = {
    "28P01": ("refuses the password", "Correct the password in DATABASE_URL"),
    "28000": ("refuses the login", "Correct the login in DATABASE_URL, or let pg_hba.conf admit it"),
    "3D000": ("has no such database", "Correct the name in DATABASE_URL, or CREATE DATABASE …"),
    "53300": ("has no connection left", "End sessions, or raise max_connections; or put a pooler in front"),
    "57P03": ("is starting up or shutting down", "Try again"),
}
LOOKING_FAILS = (
    SQLAlchemyError,
    AsyncAdapt_asyncpg_dbapi.Error,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    *REDIS_ERRORS,
)


async def examine(settings: CommandSettings | Settings) -> list[Check]:
    """Make every check, in READ ONLY transactions, and return them in the order of the lists above.

    Where PostgreSQL or Redis cannot be reached, that is a check, and those that depend on it say that they
    were not made.
    """
    examination = Examination(settings)
    try:
        return await examination.checks()
    finally:
        await examination.close()


class Examination:
    """One run's connections, and the time that is left to it."""

    def __init__(self, settings: CommandSettings | Settings) -> None:
        self._engine = create_engine(
            settings,
            application_name="collection-sync preflight",
            pool_size=CONNECTIONS_AT_ONCE,
            statement_timeout_seconds=CHECK_SECONDS,
            checks_sequences=False,
            checks_writable=False,
        )
        self._places = asyncio.Semaphore(CONNECTIONS_AT_ONCE)
        url = settings.redis_url
        self._redis = None if url is None else open_redis(url.get_secret_value())
        self._ends_at = asyncio.get_running_loop().time() + WHOLE_SECONDS

    async def close(self) -> None:
        await self._engine.dispose()
        if self._redis:
            await self._redis.aclose(close_connection_pool=True)

    async def checks(self) -> list[Check]:
        database, redis = await asyncio.gather(self._of_database(), self._of_redis())
        if self._redis is None or database[0].state or redis[0].state:
            both = [not_looked(name, UNREACHED_BOTH) for name in BOTH]
        else:
            looks = {name: partial(self._read, partial(look, self._redis)) for name, look in BOTH.items()}
            both = [await self._looked(name, look) for name, look in looks.items()]
        return [*database, *redis, *both]

    async def _of_database(self) -> list[Check]:
        reached = await self._reached_database()
        if reached.state:
            return [reached, *(not_looked(name, "PostgreSQL was not reached") for name in DATABASE)]
        looks = (self._looked(name, partial(self._read, look)) for name, look in DATABASE.items())
        made = await asyncio.gather(*looks)
        if not any(check.name == "search_path" and check.state for check in made):
            return [reached, *made]
        return [
            reached,
            *(
                not_looked(check.name, NO_TABLES) if check.name in TABLES and not check.state else check
                for check in made
            ),
        ]

    async def _of_redis(self) -> list[Check]:
        reached = await self._reached_redis()
        if self._redis is None or reached.state:
            return [reached, *(not_looked(name, "Redis was not reached") for name in REDIS)]
        looks = (self._looked(name, partial(look, self._redis)) for name, look in REDIS.items())
        return [reached, *await asyncio.gather(*looks)]

    async def _reached_database(self) -> Check:
        try:
            async with asyncio.timeout(CONNECT_SECONDS), driver_connection(self._engine):
                return judged("database", Found("PostgreSQL is reached."))
        except PoolerError as error:
            return judged("database", Found("", [stop(str(error))]))
        except LOOKING_FAILS as error:
            what = UNREACHED.get(
                sqlstate(cause_of(error)) or "", (f"cannot be reached ({why(error)})", START)
            )
            return judged("database", Found("", [stop(f"PostgreSQL {what[0]}.", what[1])]))

    async def _reached_redis(self) -> Check:
        if self._redis is None:
            return not_looked("redis", NO_REDIS)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._redis.ping()
        except NoPermissionError:  # so it is reached
            pass
        except REDIS_ERRORS as error:
            sentence = f"Redis cannot be reached ({why(error)}); {doorbell.SLOWER}."
            return judged("redis", Found("", [warn(sentence, "Start Redis, or correct REDIS_URL")]))
        return judged("redis", Found("Redis is reached."))

    async def _looked(self, name: str, look: Callable[[], Awaitable[Found]]) -> Check:
        """Make a check within its time, or return why nothing is known."""
        async with self._places:
            now = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout_at(min(self._ends_at, now + CHECK_SECONDS + 1)):
                    return judged(name, await look())
            except LOOKING_FAILS as error:
                return not_looked(name, why(error))

    async def _read(self, look: OfDatabase) -> Found:
        async with driver_connection(self._engine) as connection, connection.transaction(readonly=True):
            return await look(connection)


def cause_of(error: BaseException) -> BaseException:
    """Return what PostgreSQL or the driver said, out of what SQLAlchemy made of it."""
    while isinstance(error, DBAPIError | AsyncAdapt_asyncpg_dbapi.Error) and error.__cause__ is not None:
        error = error.__cause__
    return error


def why(error: BaseException) -> str:
    """Return in a few words what kept us from looking; nothing that a user wrote, and no secret."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    return reason(cause_of(error))
