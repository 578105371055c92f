"""What a Redis URL must be before a process connects by it. No message holds a piece of it."""

import re
from urllib.parse import parse_qsl, unquote, urlsplit

from shared.postgres.libpq_url import CONTROL, ESCAPE, LAST_PORT, NAME

SCHEMES = ("redis://", "rediss://", "unix://")
WRONG_SCHEME = "must begin with redis://, rediss:// or unix://"
NOT_A_URL = f"is not a URL such as redis://user:password@host:6379/0, of one host; {ESCAPE}"
PORT = re.compile(r"[^:]*|\[[0-9A-Fa-f:.]+\]|(?:[^:]*|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
# redis-py would take any of its own arguments, also those by which we bound how long we wait for it.
TLS = (
    "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile", "ssl_keyfile",
    "ssl_password", "ssl_check_hostname",
)  # fmt: skip
PARAMETERS = ("db", "client_name", "health_check_interval", "protocol", *TLS)
NUMBERS = ("db", "health_check_interval", "protocol")
OURS = ("socket_timeout", "socket_connect_timeout", "socket_keepalive", "retry_on_timeout", "max_connections")


def check_redis_url(url: str) -> None:
    """Return where redis-py can connect by this URL.

    Raises:
        ValueError: it cannot; the message says what to do and quotes nothing but a parameter's name.

    """
    if not url.startswith(SCHEMES):
        raise ValueError(WRONG_SCHEME)
    if CONTROL.search(url) or "#" in url:
        raise ValueError(NOT_A_URL)
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(NOT_A_URL) from None
    if parts.scheme != "unix":
        _check_host(parts.netloc.rpartition("@")[2])
        if not re.fullmatch("/?|/[0-9]+/?", unquote(parts.path)):
            raise ValueError(NOT_A_URL)
    elif not parts.path:
        msg = "names no path of a socket, as unix:///run/redis.sock does"
        raise ValueError(msg)
    _check_parameters(parts.query, is_tls=parts.scheme == "rediss")


def _check_host(host: str) -> None:
    port = PORT.fullmatch(host)
    if "," in host or port is None:
        raise ValueError(NOT_A_URL)
    if port[1] is not None and not 0 < int(port[1]) <= LAST_PORT:
        msg = "holds a port that is no number from 1 to 65535"
        raise ValueError(msg)


def _check_parameters(query: str, *, is_tls: bool) -> None:
    if "@" in query:  # what stands before it is the rest of a password, and must not be taken for a name
        raise ValueError(NOT_A_URL)
    for name, value in parse_qsl(query, keep_blank_values=True):
        if not NAME.fullmatch(name):
            raise ValueError(NOT_A_URL)
        if name in OURS:
            raise ValueError(f"holds {name}, which is not its to choose: take it out")
        if name not in PARAMETERS or (name in TLS and not is_tls):
            raise ValueError(f"holds {name}, which is no parameter that can be honoured: take it out")
        if name in NUMBERS and not re.fullmatch("[0-9]{1,9}", value):
            raise ValueError(f"holds a {name} that is no number")
