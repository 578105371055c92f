"""Which failures of a batch are one row's fault, and which a connection's."""

import asyncpg

from shared.postgres.faults import (
    LOCK_NOT_AVAILABLE,
    PROGRAM_LIMIT,
    is_environmental,
    is_transient,
    sqlstate,
)

ROW_CLASSES = frozenset(
    {
        "22",  # data exception
        "23",  # integrity constraint violation
        "44",  # WITH CHECK OPTION violation
        "P0",  # raised by a trigger
    }
)


def is_row_fault(error: BaseException) -> bool:
    """Return whether a row's own values caused the error, so that setting it aside frees the others."""
    code = sqlstate(error)
    if code is None or is_environmental(error):
        return False
    return code[:2] in ROW_CLASSES or code[:2] == PROGRAM_LIMIT


def is_connection_lost(error: BaseException) -> bool:
    """Return whether the connection broke without a word of the server, as it does when its process dies."""
    return isinstance(error, (asyncpg.ConnectionDoesNotExistError, ConnectionResetError, BrokenPipeError))


def may_be_one_rows(error: BaseException) -> bool:
    """Return whether trying the rows apart may free the others: one may be at fault, or locked."""
    code = sqlstate(error)
    return code == LOCK_NOT_AVAILABLE or (code is not None and not is_transient(error))
