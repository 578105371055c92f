"""Which failures of PostgreSQL pass by themselves, and which are the fault of one row."""

import asyncio
import re

import asyncpg
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

# Classes and codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
# Connection, resources, operator intervention; and a login that is refused: a password may be changing.
TRANSIENT_CLASSES = frozenset({"08", "28", "53", "57"})
TRANSIENT_CODES = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "55P03",  # lock_not_available
        "25P03",  # idle_in_transaction_session_timeout
    }
)
ROW_CLASSES = frozenset(
    {
        "21",  # cardinality violation
        "22",  # data exception
        "23",  # integrity constraint violation
        "44",  # WITH CHECK OPTION violation
        "54",  # program limit exceeded: a key too long for its index
        "P0",  # raised by a trigger
    }
)
FOREIGN_KEY_VIOLATION = "23503"
LOCK_NOT_AVAILABLE = "55P03"
NOT_MIGRATED = frozenset({"42P01", "42703"})  # a table, or a column, that is not there
# Without a code: the driver itself found the connection gone, or, InternalClientError, about to go. The
# server's last word has come then, but not yet the end of the stream. The last two are what SQLAlchemy
# makes of those while it opens a connection.
DRIVER_ERRORS = (
    InterfaceError,
    InternalError,
    OperationalError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    AsyncAdapt_asyncpg_dbapi.InterfaceError,
    AsyncAdapt_asyncpg_dbapi.InternalError,
)


def sqlstate(error: BaseException) -> str | None:
    """Return the five characters that PostgreSQL gave the error, or None when it gave none."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlstate", None)
    return code if isinstance(code, str) else None


def is_transient(error: BaseException) -> bool:
    """Say whether the same work may succeed later, unchanged: the database is away, busy or shut."""
    if isinstance(error, (OSError, asyncio.TimeoutError, PoolTimeoutError)):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    code = sqlstate(error)
    if code is None:
        is_misuse = isinstance(error, ValueError)  # asyncpg's DataError: an argument of the wrong type
        return isinstance(error, DRIVER_ERRORS) and not is_misuse
    return code[:2] in TRANSIENT_CLASSES or code in TRANSIENT_CODES


def is_row_fault(error: BaseException) -> bool:
    """Say whether a row's own values caused the error, so that setting it aside frees the others."""
    code = sqlstate(error)
    return code is not None and code[:2] in ROW_CLASSES


def is_connection_lost(error: BaseException) -> bool:
    """Say whether the connection broke without a word of the server, as it does when its process dies."""
    return isinstance(error, (asyncpg.ConnectionDoesNotExistError, ConnectionResetError, BrokenPipeError))


def may_be_one_rows(error: BaseException) -> bool:
    """Say whether trying the rows apart may free the others: one may be at fault, or locked by somebody."""
    code = sqlstate(error)
    return code == LOCK_NOT_AVAILABLE or (code is not None and not is_transient(error))


# What a message quotes may be what a user wrote. These parts are names out of the schema.
NAMED_BY_ERRORS = {"table": "table_name", "column": "column_name", "constraint": "constraint_name"}
RAISED_IN = re.compile(r"^PL/pgSQL function \S+\([^)\n]*\) line \d+ at [^\n]+$", re.MULTILINE)
LONGEST_REASON = 500


def reason(error: BaseException) -> str:
    """Say in bounded words what PostgreSQL refused and where, with no value that a user wrote.

    Made of the error's condition, the names of table, column and constraint, and the line of the
    trigger function that raised it; never of its message, which may quote the row.
    """
    condition = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__.removesuffix("Error")).lower()
    named = [f"{kind} {name}" for kind, name in _names_in(error) if name]
    raised_in = RAISED_IN.search(getattr(error, "context", None) or "")
    return ", ".join([condition, *named, *([raised_in[0]] if raised_in else [])])[:LONGEST_REASON]


def _names_in(error: BaseException) -> list[tuple[str, str | None]]:
    return [(kind, getattr(error, attribute, None)) for kind, attribute in NAMED_BY_ERRORS.items()]
