"""Which failures of PostgreSQL pass by themselves, which are the surroundings' fault, and how each is put."""

import asyncio
import re
from dataclasses import dataclass

import asyncpg
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared.projection import COLUMNS

# Classes and codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
# Connection, resources, operator intervention; and a login that is refused: a password may be changing.
READ_ONLY_TRANSACTION = "25006"
TRANSIENT_CLASSES = frozenset({"08", "28", "53", "57"})
TRANSIENT_CODES = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "55P03",  # lock_not_available
        "25P03",  # idle_in_transaction_session_timeout
        "25P04",  # transaction_timeout
        READ_ONLY_TRANSACTION,
    }
)
# What the server or its schema lacks or forbids, whatever the row: a table, a column, a privilege, an index,
# a feature; writing; memory of its own.
ENVIRONMENT_CLASSES = frozenset({"0A", "25", "26", "34", "3D", "3F", "42", "55", "58", "F0", "HV", "XX"})
SEQUENCE_EXHAUSTED = "2200H"
PROGRAM_LIMIT = "54"  # a key too long for its index, or what PostgreSQL says to be spared wraparound
MAKES_KEYS = (
    "index_form_tuple"  # of PostgreSQL's functions, the one that complains of a key and names no index
)
NOT_NULL_VIOLATION = "23502"
CHECK_VIOLATION = "23514"  # or a row for which there is no partition
UNIQUE_VIOLATION = "23505"
QUERY_CANCELED = "57014"
FOREIGN_KEY_VIOLATION = "23503"
# Of project_collections, what a batch writes.
WRITTEN_COLUMNS = frozenset({"project_id", "collection_id", *(column.name for column in COLUMNS)})
LOCK_NOT_AVAILABLE = "55P03"
INSUFFICIENT_PRIVILEGE = "42501"
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
# Whatever the driver raises. The last is what a login that is refused comes as.
OF_THE_DRIVER = (asyncpg.PostgresError, asyncpg.InterfaceError, AsyncAdapt_asyncpg_dbapi.Error)


def sqlstate(error: BaseException) -> str | None:
    """Return the five characters that PostgreSQL gave the error, or None when it gave none."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlstate", None)
    return code if isinstance(code, str) else None


def raised_by_driver(error: BaseException) -> BaseException | None:
    return error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig else error


def is_outdated_plan(error: BaseException) -> bool:
    """Return whether the statement did not even begin, since a table was altered after it was prepared.

    The driver prepares it anew the next time.
    """
    return isinstance(raised_by_driver(error), asyncpg.InvalidCachedStatementError)


def is_transient(error: BaseException) -> bool:
    """Return whether the same work may succeed later: the database is away, busy, shut or altered."""
    if is_outdated_plan(error):
        return True
    if isinstance(error, (OSError, asyncio.TimeoutError, PoolTimeoutError)):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    code = sqlstate(error)
    if code is None:
        is_misuse = isinstance(error, ValueError)  # asyncpg's DataError: an argument of the wrong type
        return isinstance(error, DRIVER_ERRORS) and not is_misuse
    return code[:2] in TRANSIENT_CLASSES or code in TRANSIENT_CODES


def is_environmental(error: BaseException) -> bool:
    """Return whether the server or its schema is to blame, and no row: it refuses what it should take.

    Of a unique or a foreign key only the catalogue knows, see `worker/relay/blame.py`.
    """
    code = sqlstate(error)
    if code is None:
        return False
    raised = raised_by_driver(error)
    if code[:2] == PROGRAM_LIMIT or code == CHECK_VIOLATION:
        names_nothing = not getattr(raised, "constraint_name", None)
        return names_nothing and not (getattr(raised, "server_source_function", None) or "").startswith(
            MAKES_KEYS
        )
    if code == NOT_NULL_VIOLATION:  # a column that we do not write, and that has no default
        return getattr(raised, "column_name", None) not in WRITTEN_COLUMNS
    return code == SEQUENCE_EXHAUSTED or code[:2] in ENVIRONMENT_CLASSES | TRANSIENT_CLASSES


HIDDEN_ROWS = (
    "Row-level security keeps this role from seeing every row, and what it sees is not to be taken"
    " for all. Let a superuser run ALTER ROLE ... BYPASSRLS for it."
)


def hides_rows(error: BaseException) -> bool:
    return getattr(raised_by_driver(error), "server_source_function", None) == "check_enable_rls"


def denied(error: BaseException) -> str | None:
    """Return PostgreSQL's own words for a right that is missing: they name what it is for, and no value.

    None where a function of the database's owner raised that.
    """
    raised = raised_by_driver(error)
    is_its_own = (getattr(raised, "server_source_function", None) or "").startswith("aclcheck_error")
    return str(raised) if is_its_own else None


# What a message quotes may be what a user wrote. These parts are names out of the schema.
NAMED_BY_ERRORS = {"table": "table_name", "column": "column_name", "constraint": "constraint_name"}
RAISED_IN = re.compile(r"^PL/pgSQL function \S+\([^)\n]*\) line \d+ at [^\n]+$", re.MULTILINE)
LONGEST_REASON = 500
LONGEST_SAID = 2_000


def reason(error: BaseException) -> str:
    """Describe in bounded words what PostgreSQL refused and where, with no value that a user wrote.

    Made of the error's condition, the names of table, column and constraint, and the line of the
    trigger function that raised it; never of its message, which may quote the row.
    """
    error = raised_by_driver(error) or error
    condition = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__.removesuffix("Error")).lower()
    named = [f"{kind} {name}" for kind, name in _names_in(error) if name]
    raised_in = RAISED_IN.search(getattr(error, "context", None) or "")
    return ", ".join([condition, *named, *([raised_in[0]] if raised_in else [])])[:LONGEST_REASON]


def _names_in(error: BaseException) -> list[tuple[str, str | None]]:
    return [(kind, getattr(error, attribute, None)) for kind, attribute in NAMED_BY_ERRORS.items()]


@dataclass(frozen=True, slots=True)
class Said:
    """What PostgreSQL said of a refusal. It may quote what users wrote, so no log line holds it."""

    message: str | None = None
    detail: str | None = None
    hint: str | None = None


def said_by(error: BaseException) -> Said:
    """Return the words of the server, each cut to LONGEST_SAID characters; none where it said nothing.

    They hold no NUL, which ends a text on its way here, and nothing is added, which its encoding may lack.
    """
    raised = raised_by_driver(error)
    if not isinstance(raised, asyncpg.PostgresError):
        return Said()
    return Said(_cut(raised.args[0] if raised.args else None), _cut(raised.detail), _cut(raised.hint))


def _cut(words: str | None) -> str | None:
    return words and words[:LONGEST_SAID]
