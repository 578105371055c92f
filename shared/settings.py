"""Settings, read from the environment once by each composition root and passed on from there."""

import errno
import os
import shlex
import sys
import unicodedata
from pathlib import Path
from typing import Annotated, Literal, NoReturn, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.postgres.address import read_address
from shared.process.orderly import WRONG_USAGE, complain
from shared.redis.url import check_redis_url
from shared.variables import COMMANDS, SETTINGS

# What `make run` leaves for other terminals, for as long as it lasts: see deploy/local/variables.py.
TRIAL = Path(__file__).resolve().parents[1] / ".local" / "env"
# What pydantic says of these speaks of inputs and parsing.
WORDS = {
    "bool_parsing": "must be true or false",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "int_from_float": "must be a whole number",
}
BLANK = "holds nothing but blanks: set it, or take it out"
LAST_OF_LATIN_1 = 0xFF
MOST_KEPT_SECONDS = 30 * 86_400


class SettingsError(Exception):
    """The environment does not hold what the process needs; the message says what to set."""


def refuse(error: SettingsError) -> NoReturn:
    """End the process as each of ours ends that was not given what it needs: with a sentence, and 2."""
    complain(*str(error).split("\n"))
    sys.exit(WRONG_USAGE)


def _database_url(secret: SecretStr) -> SecretStr:
    read_address(secret.get_secret_value())
    return secret


def _redis_url(secret: SecretStr) -> SecretStr:
    check_redis_url(secret.get_secret_value())
    return secret


def _token(secret: SecretStr) -> SecretStr:
    """Let a token pass that a header can carry."""
    token = secret.get_secret_value()
    if any(unicodedata.category(letter) == "Cc" or ord(letter) > LAST_OF_LATIN_1 for letter in token):
        msg = "holds a character that no header carries: take a token of letters and digits"
        raise ValueError(msg)
    return secret


def _writable(path: Path) -> Path:
    """Let a path pass to which lines can be appended; a file that is not there is made, and stays."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666))
    except OSError as error:
        if error.errno != errno.ENXIO:  # a pipe, whose reader may come later
            raise ValueError(f"{_shown(path)} cannot be written: {error.strerror}") from None
    return path


def _shown(path: Path) -> str:
    return (
        str(path).encode("unicode_escape", "replace").decode() if not str(path).isprintable() else str(path)
    )


class DatabaseSettings(BaseSettings):
    """What migrations need; each variable's name is the field's, in capitals."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _stripped(cls, value: object) -> object:
        """Take a value without the blanks and line breaks that files and copying leave around it.

        Raises:
            ValueError: there is nothing else. Taken for one that is not set, it would open a door.

        """
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not isinstance(text, str):
            return value
        if not text.strip():
            raise ValueError(BLANK)
        return text.strip()

    database_url: Annotated[
        SecretStr,
        AfterValidator(_database_url),
        Field(description=SETTINGS["database_url"]),
    ]
    database_pooler: Annotated[
        Literal["transaction"] | None,
        Field(description=SETTINGS["database_pooler"]),
    ] = None


class ProcessSettings(DatabaseSettings):
    """What anything needs that runs for a while and logs."""

    log_file: Annotated[
        Annotated[Path, AfterValidator(_writable)] | None,
        Field(description=SETTINGS["log_file"]),
    ] = None


class CommandSettings(ProcessSettings):
    """What the commands need: without Redis, the worker's sweep finds their events within a second."""

    redis_url: Annotated[
        Annotated[SecretStr, AfterValidator(_redis_url)] | None,
        Field(description=COMMANDS["redis_url"]),
    ] = None


class PhaseSettings(DatabaseSettings):
    """What must be true before the phase of the cutover is advanced; times are seconds."""

    # What the capture saw is kept for 30 days, and so are audits.
    phase_writers_seconds: Annotated[
        float, Field(ge=0, le=MOST_KEPT_SECONDS, description=SETTINGS["phase_writers_seconds"])
    ] = 86_400
    phase_in_sync_seconds: Annotated[
        float, Field(ge=0, le=MOST_KEPT_SECONDS, description=SETTINGS["phase_in_sync_seconds"])
    ] = 86_400
    phase_lists_compared: Annotated[
        int, Field(ge=0, le=10**9, description=SETTINGS["phase_lists_compared"])
    ] = 1_000


class TurnSettings(PhaseSettings, CommandSettings):
    """What the command needs that turns the phase."""


class Settings(PhaseSettings, ProcessSettings):
    """What the API and the worker need."""

    redis_url: Annotated[
        SecretStr,
        AfterValidator(_redis_url),
        Field(description=SETTINGS["redis_url"]),
    ]
    read_only_mode: Annotated[bool, Field(description=SETTINGS["read_only_mode"])] = False
    gateway_token: Annotated[
        Annotated[SecretStr, AfterValidator(_token)] | None,
        Field(description=SETTINGS["gateway_token"]),
    ] = None
    admin_token: Annotated[
        Annotated[SecretStr, AfterValidator(_token)] | None,
        Field(description=SETTINGS["admin_token"]),
    ] = None
    shadow_share: Annotated[float, Field(ge=0, le=1, description=SETTINGS["shadow_share"])] = 0.1
    dead_letter_retention_days: Annotated[
        int, Field(ge=1, le=36_500, description=SETTINGS["dead_letter_retention_days"])
    ] = 30
    worker_metrics_port: Annotated[
        int | None,
        Field(ge=1, le=65_535, description=SETTINGS["worker_metrics_port"]),
    ] = None
    worker_metrics_host: Annotated[str, Field(description=SETTINGS["worker_metrics_host"])] = "127.0.0.1"


SettingsType = TypeVar("SettingsType", bound=DatabaseSettings)


def load_settings(kind: type[SettingsType], **given: str) -> SettingsType:
    """Read the settings of this kind from the environment.

    Args:
        kind: of the settings.
        given: values, by the names of fields, that count instead of the environment's.

    Raises:
        SettingsError: variables are missing or malformed; the message names each, and quotes only paths.

    """
    try:
        return kind(**given)  # type: ignore[arg-type]  # the other fields come from the environment
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
        raise SettingsError("\n".join(map(_sentence, problems))) from None


def _not_set() -> str:
    if not TRIAL.is_file():
        return "is not set: set it, or try everything with `make run`"
    root = TRIAL.parents[1]
    file = TRIAL.relative_to(root) if Path.cwd() == root else TRIAL
    return f"is not set: a trial of `make run` is under way here, so type `. {shlex.quote(str(file))}` first"


def _sentence(problem: ErrorDetails) -> str:
    name, reason = str(problem["loc"][0]), problem.get("ctx", {}).get("error")
    words = WORDS | {"missing": _not_set()}
    said = str(reason) if isinstance(reason, ValueError) else words.get(problem["type"]) or problem["msg"]
    return f"{name.upper()}: {said[0].lower() if reason is None else said[0]}{said[1:]}."
