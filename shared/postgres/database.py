"""The one place that makes database engines, and lends the driver's own connections."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import MappingProxyType
from typing import Any, cast

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import greenlet_spawn

from shared.postgres.address import forget_closed_home, read_address
from shared.postgres.faults import READ_ONLY_TRANSACTION, sqlstate
from shared.postgres.pooler import UnfitServerError, connect, require_sequences
from shared.settings import DatabaseSettings

CONNECT_TIMEOUT_SECONDS = 5
# Whatever the database's or the role's defaults are. The guard rests on READ COMMITTED; where a policy would
# hide rows from us, that is to be an error: we would take a part for all; and a backslash in our statements'
# patterns is to be one.
RELIED_ON = {
    "default_transaction_isolation": "read committed",
    "row_security": "off",
    "standard_conforming_strings": "on",
    "idle_session_timeout": "0",  # our pools keep what they do not use at the moment
}
RELIED_ON_IN_A_TRANSACTION = {
    "transaction_isolation": "read committed",
    "row_security": "off",
    "standard_conforming_strings": "on",
}
REACH_SECONDS = 2.0  # for a database that may be away

# Of an engine whose sessions are a pooler's: each of them is ours for one transaction only.
POOLED = "collection_sync_pooled"
# Of every engine: set while its pool is to open its connections anew.
OUTDATED = "collection_sync_outdated"


def create_engine(  # noqa: PLR0913 - keywords that each process chooses
    settings: DatabaseSettings,
    *,
    application_name: str,
    pool_size: int,
    statement_timeout_seconds: int,
    pool_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
    session: Mapping[str, str] = MappingProxyType({}),
    checks_sequences: bool = True,
    checks_writable: bool = True,
) -> AsyncEngine:
    """Make an engine whose sessions can neither hang for ever nor outlive their process.

    Args:
        settings: holds the database's URL.
        application_name: what `pg_stat_activity` shows for these connections.
        pool_size: the most connections this process opens; a request waits its turn for one.
        statement_timeout_seconds: bound on one statement, lock waits included.
        pool_timeout_seconds: how long a borrower waits while every connection is lent.
        session: further PostgreSQL settings of these sessions.
        checks_sequences: False for a caller that repairs sequences, or draws nothing from them.
        checks_writable: False for a caller that only reads, also from a server that takes no writes.

    A client that stops in the middle of a transaction (frozen, or cut off) loses it after ten
    seconds, and a client that was killed loses it within one, even while its statement waits for
    a lock: the rows it had claimed are free again.

    Through a pooler (DATABASE_POOLER) all of that holds as well, but each statement belongs to a transaction.
    A connection on which it would not hold is not lent: PoolerError. Nor is one to a server that takes no
    writes, or whose sequences are wrong: UnfitServerError; and one that turns out to lead to such a server is
    thrown away.

    """
    forget_closed_home()
    address = read_address(settings.database_url.get_secret_value())
    outdated = asyncio.Event()
    is_pooled = settings.database_pooler is not None
    engine = create_async_engine(
        address.url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout_seconds,
        connect_args={
            **address.arguments,
            "timeout": min(
                address.connect_timeout_seconds or CONNECT_TIMEOUT_SECONDS, CONNECT_TIMEOUT_SECONDS
            ),
            "command_timeout": statement_timeout_seconds + CONNECT_TIMEOUT_SECONDS,  # a frozen server
            "server_settings": {
                **address.server_settings,
                "application_name": application_name,
                "timezone": "UTC",
            },
            "async_creator_fn": partial(
                _open,
                outdated,
                address=address,
                is_pooled=is_pooled,
                checks_sequences=checks_sequences,
                checks_writable=checks_writable,
                session={
                    "statement_timeout": _as_shown(statement_timeout_seconds),
                    "idle_in_transaction_session_timeout": "10s",
                    "client_connection_check_interval": "1s",
                    **(RELIED_ON_IN_A_TRANSACTION if is_pooled else RELIED_ON),
                    **session,
                },
            ),
            **({"prepared_statement_cache_size": 0} if is_pooled else {}),
        },
        execution_options={POOLED: is_pooled, OUTDATED: outdated},
    )
    event.listen(engine.sync_engine, "checkout", lend_none_that_was_closed)
    event.listen(engine.sync_engine, "checkout", partial(lend_none_if_outdated, outdated))
    event.listen(engine.sync_engine, "handle_error", throw_away_if_read_only)
    return engine


async def _open(outdated: asyncio.Event, *where: Any, **how: Any) -> asyncpg.Connection:  # noqa: ANN401
    """Open a connection; where it finds wrong sequences, so would those that the pool has."""
    try:
        return await connect(*where, **how)
    except UnfitServerError as error:
        if error.has_wrong_sequences:
            outdated.set()
        raise


def _as_shown(seconds: int) -> str:
    """Write a time as PostgreSQL shows it: in the largest unit that leaves no rest."""
    return f"{seconds}s" if seconds % 60 else f"{seconds // 60}min"


async def refuse_wrong_pooler(engine: AsyncEngine) -> None:
    """Connect once, so that a process that must not work through this pooler does not even begin.

    A database that is away proves nothing: then each connection proves it when it is opened.

    Raises:
        PoolerError: what the process must be given.

    """
    with suppress(SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        async with asyncio.timeout(REACH_SECONDS), engine.connect():
            pass


def is_pooled(source: AsyncEngine | AsyncConnection) -> bool:
    """Return whether the sessions of this engine, or the one of this connection, are a pooler's."""
    sync = source.sync_engine if isinstance(source, AsyncEngine) else source.sync_connection
    return bool(sync is not None and sync.get_execution_options().get(POOLED))


def lend_none_that_was_closed(connection: DBAPIConnection, *_: object) -> None:
    """Let the pool open another connection instead of one that the server ended while it was idle.

    Raises:
        DisconnectionError: to the pool.

    """
    if cast("asyncpg.Connection", connection.driver_connection).is_closed():
        raise DisconnectionError


def lend_none_if_outdated(outdated: asyncio.Event, *_: object) -> None:
    """Let the pool open its connections anew, this one first, and so have each of them checked.

    Raises:
        InvalidatePoolError: to the pool.

    """
    if outdated.is_set():
        outdated.clear()
        raise InvalidatePoolError


async def refuse_wrong_sequences(engine: AsyncEngine, *others: AsyncEngine) -> None:
    """Look at the sequences again; where they are wrong, none of these engines lends a connection any more.

    Raises:
        UnfitServerError: they are wrong; the message holds the SQL that fixes them.
        what opening a connection raises.

    """
    try:
        async with driver_connection(engine) as connection:
            await require_sequences(connection)
    except UnfitServerError:
        for each in (engine, *others):
            each.sync_engine.get_execution_options()[OUTDATED].set()
        raise


def throw_away_if_read_only(context: ExceptionContext) -> None:
    """Let the pool forget its connections when one turns out to lead to a server that takes no writes."""
    if sqlstate(context.original_exception) == READ_ONLY_TRANSACTION:
        context.is_disconnect = True


@asynccontextmanager
async def autocommit(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Lend a connection on which each statement is a transaction of its own, by one round trip, not three.

    Through a pooler all of them are one transaction, which commits at the end of the block.
    """
    if is_pooled(engine):
        async with engine.begin() as connection:
            yield connection
        return
    async with engine.connect() as connection:
        yield await connection.execution_options(isolation_level="AUTOCOMMIT")


@asynccontextmanager
async def driver_connection(engine: AsyncEngine) -> AsyncIterator[asyncpg.Connection]:
    """Lend asyncpg's own connection from the pool, which forgets one that was cut, cancelled or too slow.

    For the worker's batches and the API's writes: a statement sent this way takes about half the time, see
    docs/decisions/0007-batches-use-the-driver.md. Transactions are the borrower's to begin and end.
    """
    lent = await engine.raw_connection()
    connection = cast("asyncpg.Connection", lent.driver_connection)
    try:
        yield connection
    except asyncpg.InterfaceError as error:
        if connection.is_closed() and isinstance(error.__context__, Exception):
            raise error.__context__ from None  # what broke it, not that it can't be rolled back any more
        raise
    # asyncpg may believe in a transaction that never began, or not in one that never ended.
    except (asyncio.CancelledError, TimeoutError, asyncpg.ReadOnlySQLTransactionError):
        await greenlet_spawn(lent.invalidate)
        raise
    finally:
        if connection.is_closed() and lent.is_valid:
            await greenlet_spawn(lent.invalidate)
        if lent.is_valid:
            lent.close()  # no I/O: SQLAlchemy knows of no transaction that it would have to roll back
