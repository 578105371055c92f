"""What becomes of each parameter that libpq knows: it is honoured, ours to choose, or refused.

Nothing that was asked for is left out in silence, TLS least of all.
"""

import os
from collections.abc import Mapping

# Handed to asyncpg, or done by ourselves: see database_address.py and tls.py.
HONOURED = frozenset({
    "host", "port", "user", "password", "dbname", "passfile", "options", "connect_timeout",
    "target_session_attrs", "krbsrvname", "gsslib",
    "sslmode", "sslnegotiation", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl",
    "ssl_min_protocol_version", "ssl_max_protocol_version",
    "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
})  # fmt: skip
# pg_stat_activity must name our processes, and asyncpg reads UTF-8.
OURS = frozenset({"application_name", "fallback_application_name", "client_encoding", "sslcompression"})
# What asyncpg does anyway, or does not do: only these values ask for that.
ONLY = {
    "channel_binding": ("prefer", "disable"),
    "gssencmode": ("prefer", "disable"),
    "gssdelegation": ("0",),
    "sslsni": ("1",),
    "sslcertmode": ("allow",),
    "load_balance_hosts": ("disable",),
    "min_protocol_version": ("3.0",),
    "max_protocol_version": ("3.0", "3.2", "latest"),
    "replication": ("false", "off", "no", "0"),
}
LIBPQ_ALONE = frozenset({
    "hostaddr", "require_auth", "requirepeer", "service", "servicefile", "sslcrldir", "sslkeylogfile",
    "scram_client_key", "scram_server_key",
    "oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope",
})  # fmt: skip
POOLERS = frozenset({"pgbouncer", "prepared_statement_cache_size", "statement_cache_size"})
INSTEAD = {"channel_binding": ", and sslmode=verify-full to be sure of the server"}

# Of libpq's variables those that asyncpg heeds where the URL says nothing, and those that ask for protection.
VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "krbsrvname": "PGKRBSRVNAME",
    "gsslib": "PGGSSLIB",
    "channel_binding": "PGCHANNELBINDING",
    "gssencmode": "PGGSSENCMODE",
    "require_auth": "PGREQUIREAUTH",
    "requirepeer": "PGREQUIREPEER",
    "sslcrldir": "PGSSLCRLDIR",
    "sslcertmode": "PGSSLCERTMODE",
}


def honoured(url: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that count, out of the URL's and libpq's variables.

    Raises:
        ValueError: one cannot be honoured; the message names it, or the variable that it came from.

    """
    found = {**borrowed(url), **_with_sslmode(url)}
    for name, value in found.items():
        _refuse_what_nobody_does(name, value, name if name in url else VARIABLES.get(name, name))
    return {name: value for name, value in found.items() if name in HONOURED}


def borrowed(url: Mapping[str, str]) -> dict[str, str]:
    given = {name: os.environ.get(variable, "") for name, variable in VARIABLES.items() if name not in url}
    if "host" in url:  # the port goes with the host that it was said of, or is the default of all
        given.pop("host", None)
    return {name: value for name, value in given.items() if value}


def _with_sslmode(url: Mapping[str, str]) -> dict[str, str]:
    """Read `ssl`, as JDBC and SQLAlchemy write it, as libpq's sslmode."""
    found = dict(url)
    if "ssl" in found:
        if "sslmode" in found:
            msg = "says both ssl and sslmode: take ssl out"
            raise ValueError(msg)
        mode = found.pop("ssl")
        found["sslmode"] = "require" if mode == "true" else mode
    return found


def _refuse_what_nobody_does(name: str, value: str, called: str) -> None:
    if name in HONOURED | OURS or value in ONLY.get(name, ()):
        return
    if name in POOLERS:
        what = f"holds {called}: take it out, and set DATABASE_POOLER=transaction where a pooler is"
    elif name in ONLY:
        choices = " or ".join(ONLY[name])
        what = f"asks with {called} for what asyncpg cannot do: say {choices}{INSTEAD.get(name, '')}"
    elif name in LIBPQ_ALONE:
        what = f"asks with {called} for what asyncpg cannot do: take it out"
    else:
        what = f"holds {called}, which is no parameter of libpq's: take it out"
    raise ValueError(what)
