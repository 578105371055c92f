"""What keeps a Redis from being used: it is away, or it is there and refuses something, which has a name."""

import re
from collections.abc import Sequence

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    BusyLoadingError,
    ClusterError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from shared.redis.outage import Fault

REDIS_ERRORS = (RedisError, OSError, TimeoutError)

LONGEST_CODE = 20
NOPERM_OF = re.compile(r"\b(key|channel)s?\b")
CURES = {
    "LOADING": "wait until Redis has loaded its data",
    "MISCONF": "let Redis write to its disk again, or CONFIG SET stop-writes-on-bgsave-error no",
    "NOAUTH": "put the password into REDIS_URL",
    "NOREPLICAS": "start the replicas that min-replicas-to-write asks for",
    "OOM": "raise maxmemory",
    "READONLY": "let REDIS_URL lead to the primary",
    "WRONGPASS": "correct user and password in REDIS_URL",
    **dict.fromkeys(
        ("MOVED", "ASK", "CROSSSLOT", "CLUSTERDOWN"), "let REDIS_URL lead to a Redis that is no cluster"
    ),
}


OF_THE_DOOR = {"NOAUTH", "WRONGPASS"}  # whatever was to be sent afterwards
CODES: dict[type[Exception], str] = {
    AuthenticationWrongNumberOfArgsError: "WRONGPASS",
    ReadOnlyError: "READONLY",
    OutOfMemoryError: "OOM",
    BusyLoadingError: "LOADING",
    AskError: "MOVED",
    ClusterError: "CLUSTERDOWN",
}


def fault_of(error: BaseException, command: str = "") -> Fault:
    """Name what Redis refuses, and what helps; nothing of what it says but a code is repeated.

    Args:
        error: one of REDIS_ERRORS.
        command: what it was the answer to, as far as that is known.

    """
    code = _code(error)
    if code is None:
        return Fault(type(error).__name__)
    cure = _missing_right(error, command) if code.startswith("NOPERM") else CURES.get(code.split()[0], "")
    is_of_command = bool(command) and code not in OF_THE_DOOR
    what = f"Redis refuses {command} ({code})" if is_of_command else f"Redis refuses us ({code})"
    return Fault(type(error).__name__, f"{what}: {cure}" if cure else what)


def faults_in(answers: Sequence[object], commands: Sequence[Sequence[object]]) -> list[Fault]:
    return [
        fault_of(answer, str(command[0]))
        for answer, command in zip(answers, commands, strict=True)
        if isinstance(answer, ResponseError)
    ]


def _code(error: BaseException) -> str | None:
    """Return the code of Redis's answer, which redis-py takes off most of them; None without an answer."""
    if isinstance(error, NoPermissionError):
        return f"NOPERM {_forbidden(error)}"
    for kind, code in CODES.items():
        if isinstance(error, kind):
            return code
    if isinstance(error, AuthenticationError):
        return "NOAUTH" if "required" in str(error).lower() else "WRONGPASS"
    return _first_word(str(error)) if isinstance(error, ResponseError) else None


def _first_word(answer: str) -> str:
    if answer.startswith("unknown command"):
        return "unknown command"
    word = answer.split(" ", maxsplit=1)[0]
    return word if word.isascii() and word.isupper() and len(word) <= LONGEST_CODE else "ERR"


def _forbidden(error: BaseException) -> str:
    of = NOPERM_OF.search(str(error))
    return of.group(1) if of else "command"


def _missing_right(error: BaseException, command: str) -> str:
    rules = {"key": "~collection_sync:* ~arq:*", "channel": "&collection_sync:*"}
    return f"ACL SETUSER … {rules.get(_forbidden(error), '+' + (command.lower() or '@all'))}"
