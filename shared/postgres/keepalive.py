"""How soon a system notices that the other end of a connection is gone, as libpq's parameters say."""

import re
import socket
from collections.abc import Mapping

KeepAlive = tuple[tuple[int, int, int], ...]  # level, option and value, as setsockopt takes them

# The option's names in `socket`, of which a system has one or none, and the largest number that Linux takes.
OPTIONS = {
    "keepalives_idle": (("TCP_KEEPIDLE", "TCP_KEEPALIVE"), 32_767),
    "keepalives_interval": (("TCP_KEEPINTVL",), 32_767),
    "keepalives_count": (("TCP_KEEPCNT",), 127),
    "tcp_user_timeout": (("TCP_USER_TIMEOUT",), 2**31 - 1),
}
PROBES = [name for name in OPTIONS if name.startswith("keepalives_")]


def keep_alive_of(given: Mapping[str, str]) -> KeepAlive:
    """Return the options of a socket for these of libpq's parameters; 0 is the system's default, as there.

    Raises:
        ValueError: one of them is no number, or too large; the message names it.

    """
    asked = {name: _number(name, given.get(name, "0"), most) for name, (_, most) in OPTIONS.items()}
    is_on = given.get("keepalives", "1" if any(asked[name] for name in PROBES) else "")
    if is_on not in {"", "0", "1"}:
        msg = "holds a keepalives that is neither 0 nor 1"
        raise ValueError(msg)
    if is_on == "0":
        asked |= dict.fromkeys(PROBES, 0)
    switch = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(is_on))] if is_on else []
    return (
        *switch,
        *(option for name, number in asked.items() if number for option in _option(name, number)),
    )


def _number(name: str, text: str, most: int) -> int:
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > most:
        raise ValueError(f"holds a {name} that is no number up to {most}")
    return int(text)


def _option(name: str, number: int) -> KeepAlive:
    numbers = [getattr(socket, each) for each in OPTIONS[name][0] if hasattr(socket, each)]
    return tuple((socket.IPPROTO_TCP, each, number) for each in numbers[:1])


def keep_alive(connection: socket.socket, options: KeepAlive) -> None:
    if connection.family != socket.AF_UNIX:
        for option in options:
            connection.setsockopt(*option)
