"""Settings, read from the environment once by each composition root and passed on from there."""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from shared.variables import COMMANDS, SETTINGS

POSTGRESQL_SCHEMES = frozenset({"postgres", "postgresql", "postgresql+asyncpg"})
REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


class SettingsError(Exception):
    """The environment does not hold what the process needs; the message says what to set."""


def _asyncpg_url(secret: SecretStr) -> SecretStr:
    """Turn any form that platforms hand out into the one asyncpg's dialect takes."""
    try:
        url = make_url(secret.get_secret_value())
    except ArgumentError:
        msg = "is not a URL; expected postgresql://user:password@host:5432/database"
        raise ValueError(msg) from None
    if url.drivername not in POSTGRESQL_SCHEMES:
        msg = "must begin with postgres://, postgresql:// or postgresql+asyncpg://"
        raise ValueError(msg)
    url = url.set(drivername="postgresql+asyncpg")
    if "sslmode" in url.query:  # libpq's name; asyncpg's argument is called ssl and takes the same words
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": url.query["sslmode"]})
    return SecretStr(url.render_as_string(hide_password=False))


def _redis_url(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().startswith(REDIS_SCHEMES):
        msg = "must begin with redis://, rediss:// or unix://"
        raise ValueError(msg)
    return secret


def _in_a_directory(path: Path) -> Path:
    if not path.parent.is_dir():
        msg = "lies in a directory that does not exist"
        raise ValueError(msg)
    return path


class DatabaseSettings(BaseSettings):
    """What migrations need; each variable's name is the field's, in capitals."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    database_url: Annotated[
        SecretStr,
        AfterValidator(_asyncpg_url),
        Field(description=SETTINGS["database_url"]),
    ]
    database_pooler: Annotated[
        Literal["transaction"] | None,
        Field(description=SETTINGS["database_pooler"]),
    ] = None


class ProcessSettings(DatabaseSettings):
    """What anything needs that runs for a while and logs."""

    log_file: Annotated[
        Annotated[Path, AfterValidator(_in_a_directory)] | None,
        Field(description=SETTINGS["log_file"]),
    ] = None


class CommandSettings(ProcessSettings):
    """What the commands need: without Redis, the worker's sweep finds their events within a second."""

    redis_url: Annotated[
        Annotated[SecretStr, AfterValidator(_redis_url)] | None,
        Field(description=COMMANDS["redis_url"]),
    ] = None


class Settings(ProcessSettings):
    """What the API and the worker need."""

    redis_url: Annotated[
        SecretStr,
        AfterValidator(_redis_url),
        Field(description=SETTINGS["redis_url"]),
    ]
    read_only_mode: Annotated[bool, Field(description=SETTINGS["read_only_mode"])] = False
    gateway_token: Annotated[
        SecretStr | None,
        Field(description=SETTINGS["gateway_token"]),
    ] = None
    admin_token: Annotated[
        SecretStr | None,
        Field(description=SETTINGS["admin_token"]),
    ] = None
    dead_letter_retention_days: Annotated[
        int, Field(ge=1, le=36_500, description=SETTINGS["dead_letter_retention_days"])
    ] = 30
    worker_metrics_port: Annotated[
        int | None,
        Field(ge=1, le=65_535, description=SETTINGS["worker_metrics_port"]),
    ] = None
    worker_metrics_host: Annotated[str, Field(description=SETTINGS["worker_metrics_host"])] = "127.0.0.1"


SettingsType = TypeVar("SettingsType", bound=DatabaseSettings)


def load_settings(kind: type[SettingsType]) -> SettingsType:
    """Read the settings of this kind from the environment.

    Raises:
        SettingsError: a variable is missing or malformed; the message names it, never its value.

    """
    try:
        return kind()  # the required fields come from the environment
    except ValidationError as error:
        problems = "\n".join(
            f"  {'.'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        msg = f"The environment is not complete:\n{problems}\nTry everything with `make run`."
        raise SettingsError(msg) from None
