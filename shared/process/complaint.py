"""What any process of ours says of what ended it: one sentence, of bounded length, which quotes no secret."""

import errno
import socket

from shared.migration_state import MigrationRefusedError
from shared.postgres.advice import advice_on
from shared.postgres.faults import READ_ONLY_TRANSACTION, is_transient, reason, sqlstate
from shared.process.accident import accident, first_of
from shared.process.orderly import FAILURE, WRONG_USAGE
from shared.settings import SettingsError

LOGIN = "28"
USED_UP = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC})
NO_DATABASE = "3D000"


def complaint_about(error: Exception) -> tuple[str, int]:
    """Return what to say of it, a line or several, and the exit status."""
    error = first_of(error)
    if isinstance(error, SettingsError):
        return str(error), WRONG_USAGE
    explanations = (_refusal, _no_database, advice_on, _of_this_machine, _patience, _refused)
    said = next((said for explain in explanations if (said := explain(error))), None)
    return said or accident(error), FAILURE


def _refusal(error: Exception) -> str | None:
    return str(error) if isinstance(error, MigrationRefusedError) else None


def _no_database(error: Exception) -> str | None:
    if sqlstate(error) != NO_DATABASE:
        return None
    return f"PostgreSQL has no such database ({NO_DATABASE}). Create it, or correct DATABASE_URL."


def _of_this_machine(error: Exception) -> str | None:
    """Return which file it was, or what the machine has too little of, lest the network is blamed for it."""
    if not isinstance(error, OSError):
        return None
    if error.errno in USED_UP:
        return f"{error.strerror}: this machine gives the process no more. Raise its limit; try again."
    return None if error.filename is None else f"{error.filename}: {error.strerror}."


def _patience(error: Exception) -> str | None:
    if not is_transient(error):
        return None
    code = sqlstate(error)
    if code == READ_ONLY_TRANSACTION:
        return f"PostgreSQL takes no writes ({code}): a standby, or default_transaction_read_only. Try again."
    if code is not None and code.startswith(LOGIN):
        return f"PostgreSQL refuses the login ({code}). Check user and password in DATABASE_URL."
    if isinstance(error, socket.gaierror):
        return (
            f"The host in DATABASE_URL is not known ({error.strerror}). Correct it, or fix the name service."
        )
    what = code or type(error).__name__
    return f"PostgreSQL is away or busy ({what}). Check DATABASE_URL; try again."


def _refused(error: Exception) -> str | None:
    code = sqlstate(error)
    return None if code is None else f"PostgreSQL refuses it ({code}: {reason(error)}). {accident(error)}"
