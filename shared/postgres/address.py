"""Where DATABASE_URL leads, as libpq would understand it, in the words of asyncpg."""

import getpass
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from shared.postgres.keepalive import KeepAlive, keep_alive_of
from shared.postgres.libpq_parameters import VARIABLES, borrowed, honoured
from shared.postgres.libpq_url import CONTROL, parameters_of, port_of
from shared.postgres.tls import tls_arguments

DEFAULT_PORT = 5432
# A server for reading only is none for us.
ATTRIBUTES = ("any", "read-write", "primary")
PASSED_ON = ("passfile", "krbsrvname", "gsslib")
KEY = ".postgresql/postgresql.key"


@dataclass(frozen=True)
class Address:
    """A database, and how it is to be reached.

    Attributes:
        url: as SQLAlchemy wants it: of several hosts it holds the first, and no parameter.
        hosts: `host` and `port` of each server, to be tried in this order; where there is no host, asyncpg
            tries the usual places of a socket, and localhost.
        arguments: what else `asyncpg.connect` is to be given.
        server_settings: what each session sets when it begins.
        connect_timeout_seconds: the longest that a client shall try; None where nothing was said.
        keep_alive: the options of the connection's socket.

    """

    url: URL
    hosts: tuple[Mapping[str, Any], ...]
    arguments: Mapping[str, Any]
    server_settings: Mapping[str, str]
    connect_timeout_seconds: int | None
    keep_alive: KeepAlive


def read_address(database_url: str) -> Address:
    """Read the value of DATABASE_URL, and libpq's variables beside it. Connects to nothing.

    Raises:
        ValueError: it is no such URL, or asks for what cannot be done; the message quotes no value.

    """
    said = parameters_of(database_url)
    try:
        return _address(honoured(said))
    except ValueError as error:
        variables = ", ".join(VARIABLES[name] for name in borrowed(said))
        if variables:
            raise ValueError(f"{error} (with {variables}, of which the URL says nothing)") from None
        raise


def _address(given: Mapping[str, str]) -> Address:
    for value in given.values():
        if CONTROL.search(value):  # out of the environment
            msg = "stands beside a variable with a line break in it"
            raise ValueError(msg)
    hosts = _hosts(given)
    user = given.get("user") or _own_name()
    attributes = given.get("target_session_attrs", "read-write" if len(hosts) > 1 else "any")
    if attributes not in ATTRIBUTES:
        raise ValueError(f"holds a target_session_attrs that is none of {', '.join(ATTRIBUTES)}")
    arguments = {name: given[name] for name in PASSED_ON if name in given}
    return Address(
        url=URL.create(
            "postgresql+asyncpg",
            username=user,
            password=given.get("password"),
            database=given.get("dbname") or user,
            **hosts[0],
        ),
        hosts=hosts,
        arguments=arguments | tls_arguments(given) | {"target_session_attrs": attributes},
        server_settings={"options": given["options"]} if "options" in given else {},
        connect_timeout_seconds=_seconds(given.get("connect_timeout")),
        keep_alive=keep_alive_of(given),
    )


def _hosts(given: Mapping[str, str]) -> tuple[Mapping[str, Any], ...]:
    names = given["host"].split(",") if given.get("host") else []
    said = given["port"].split(",") if given.get("port") else []
    ports = [port_of(port) if port else DEFAULT_PORT for port in said] or [DEFAULT_PORT]
    if not names:
        return ({"port": ports[0]},)
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names):
        raise ValueError(f"names {len(names)} hosts and {len(ports)} ports")
    if not all(names) or any("@" in name for name in names):
        msg = "names a host that is none"
        raise ValueError(msg)
    return tuple({"host": name, "port": port} for name, port in zip(names, ports, strict=True))


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        msg = "names no user, and this process's own has no name"
        raise ValueError(msg) from None


def _seconds(text: str | None) -> int | None:
    if not text:
        return None
    if not re.fullmatch("-?[0-9]{1,9}", text):
        msg = "holds a connect_timeout that is no number of seconds"
        raise ValueError(msg)
    return int(text) if int(text) > 0 else None


def forget_closed_home() -> None:
    """Do without a HOME that this user may not enter.

    asyncpg looks there for certificates and passwords, and fails where it may not even look: in the home of
    another user, which `sudo` or a container left in the environment.
    """
    with suppress(RuntimeError):
        try:
            (Path.home() / KEY).stat()
        except PermissionError:
            os.environ["HOME"] = os.devnull  # which is no directory
        except OSError:
            pass
