"""A URL of PostgreSQL taken apart as libpq does it. No message holds a piece of it."""

import re
from urllib.parse import unquote

SCHEMES = frozenset({"postgres", "postgresql", "postgresql+asyncpg"})
WRONG_SCHEME = "must begin with postgres://, postgresql:// or postgresql+asyncpg://"
ESCAPE = "escape @ : / in user and password, as %40 %3A %2F"
NOT_A_URL = f"is not a URL such as postgresql://user:password@host:5432/database; {ESCAPE}"
WRONG_PORT = f"holds a port that is no number from 1 to 65535 (or {ESCAPE})"
LAST_PORT = 65_535
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
IN_BRACKETS = re.compile(r"\[([0-9A-Fa-f:.%]+)\](?::(.*))?", re.DOTALL)
NAME = re.compile(r"[A-Za-z_]{1,40}")


def parameters_of(url: str) -> dict[str, str]:
    """Return what the URL says, by the names of libpq's parameters.

    Several hosts are one value, with commas between them; so are their ports, of which each may be empty.

    Raises:
        ValueError: it is no such URL; the message says what to do and quotes nothing but a parameter's name.

    """
    if CONTROL.search(url):
        msg = "holds a line break or another character that no URL holds"
        raise ValueError(msg)
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ValueError(NOT_A_URL)
    if scheme not in SCHEMES:
        raise ValueError(WRONG_SCHEME)
    before = re.match(r"[^@/]*@", rest)  # as libpq: credentials end at the first @, and hold no slash
    credentials, rest = (before[0][:-1], rest[before.end() :]) if before else ("", rest)
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    if "@" in rest:  # what stands before it is the rest of a password, and must not be taken for a name
        raise ValueError(NOT_A_URL)
    user, _, password = credentials.partition(":")
    given = {"user": user, "password": password, "dbname": path} | _hosts(authority)
    found = {name: decoded(value) for name, value in given.items() if value}
    for name, value in _query(query):
        if name in found:
            raise ValueError(f"says {name} twice")
        found[name] = value
    return found


def decoded(text: str) -> str:
    """Return the text without its percent-escapes.

    Raises:
        ValueError: they make no text.

    """
    try:
        plain = unquote(text, errors="strict")
    except UnicodeDecodeError:
        plain = "\0"
    if CONTROL.search(plain):
        msg = "holds an escape (%) that makes no text"
        raise ValueError(msg) from None
    return plain


def port_of(text: str) -> int:
    """Return the port.

    Raises:
        ValueError: it is none.

    """
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) <= LAST_PORT:
        raise ValueError(WRONG_PORT)
    return int(text)


def _hosts(authority: str) -> dict[str, str]:
    if not authority:
        return {}
    pairs = [_host(host) for host in authority.split(",")]
    if len(pairs) > 1 and not all(host for host, _ in pairs):
        msg = "names several hosts, one of them empty"
        raise ValueError(msg)
    ports = ",".join(port for _, port in pairs)
    return {"host": ",".join(host for host, _ in pairs), "port": ports.strip(",") and ports}


def _host(text: str) -> tuple[str, str]:
    if text.startswith("["):
        bracketed = IN_BRACKETS.fullmatch(text)
        if not bracketed:
            raise ValueError(NOT_A_URL)
        host, port = bracketed[1], bracketed[2]
    else:
        host, colon, rest = text.partition(":")
        port = rest if colon else None
    if port is None:
        return host, ""
    return host, str(port_of(port))


def _query(query: str) -> list[tuple[str, str]]:
    found = []
    for number, pair in enumerate(query.split("&") if query else [], 1):
        name, separator, value = pair.partition("=")
        if not separator or not NAME.fullmatch(name):
            raise ValueError(f"has a parameter (number {number}) without a name or a value; {ESCAPE}")
        found.append((name, decoded(value)))
    return found
