"""What an operator has to do before PostgreSQL takes what it refused, said alike in terminal and log."""

from shared.postgres.faults import (
    HIDDEN_ROWS,
    INSUFFICIENT_PRIVILEGE,
    NOT_MIGRATED,
    denied,
    hides_rows,
    is_environmental,
    is_transient,
    reason,
    sqlstate,
)
from shared.postgres.pooler import PoolerError, UnfitServerError

LACKS_TABLES = (
    "The database lacks our tables, or columns of them: run `alembic upgrade head` first. Or this role's"
    " search_path leads past them, or it may not use their schema: run deploy/roles.sql."
)
RAISED = "P0"  # by a function of the database owner's
OWN_STATEMENT = "42"  # which may be wrong as well


def advice_on(error: BaseException) -> str | None:
    """Return the sentence, which quotes no value that a user wrote, or None where there is none to give."""
    if isinstance(error, (PoolerError, UnfitServerError)):
        return str(error)
    if hides_rows(error):
        return HIDDEN_ROWS
    code = sqlstate(error) or ""
    if code in NOT_MIGRATED:
        return LACKS_TABLES
    if code == INSUFFICIENT_PRIVILEGE:
        what = denied(error) or reason(error)
        return f"This role lacks a right ({what}). Let the tables' owner run deploy/roles.sql again."
    is_others_doing = code[:2] == RAISED or (is_environmental(error) and code[:2] != OWN_STATEMENT)
    if is_others_doing and not is_transient(error):
        return f"Something in the database refuses it ({code}: {reason(error)}). Let its owner change that."
    return None
