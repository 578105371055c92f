"""TLS to PostgreSQL as libpq's parameters ask for it, never weaker; its files are tried at the start."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
ENCRYPTING = MODES[3:]
VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
CHOICES = {
    "sslmode": MODES,
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": VERSIONS,
    "ssl_max_protocol_version": VERSIONS,
}
PARAMETERS = (*CHOICES, "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl")
SYSTEM = "system"  # the sslrootcert of those that the machine trusts
WITH_SYSTEM = ("verify-full", None)  # nothing less, as libpq has it


def tls_arguments(given: Mapping[str, str]) -> dict[str, Any]:
    """Return asyncpg's arguments for these of libpq's parameters; those of other things are passed over.

    Raises:
        ValueError: they cannot be meant, or name a file that cannot be used; the message quotes no value.

    """
    asked = {name: given[name] for name in PARAMETERS if name in given}
    for name, choices in CHOICES.items():
        if name in asked and asked[name] not in choices:
            raise ValueError(f"holds an {name} that is none of {', '.join(choices)}")
    mode = asked.get("sslmode")
    if asked.get("sslrootcert") == SYSTEM:
        if mode not in WITH_SYSTEM:
            msg = "says sslrootcert=system, which goes with sslmode=verify-full and no other"
            raise ValueError(msg)
        mode = asked["sslmode"] = "verify-full"
    if asked.get("sslnegotiation") == "direct" and mode not in ENCRYPTING:
        msg = "says sslnegotiation=direct, which goes with sslmode=require or stronger"
        raise ValueError(msg)
    if mode != "disable":
        _try_files(asked, mode)
    # Of its TLS asyncpg takes all but the mode from nothing but a URL.
    dsn = {"dsn": f"postgresql://?{urlencode(asked)}"} if asked else {}
    if asked.get("sslrootcert") == SYSTEM:
        return {"dsn": f"postgresql://?{urlencode(_negotiation(asked))}", "ssl": _by_the_machine(asked)}
    return dsn


def _negotiation(asked: Mapping[str, str]) -> dict[str, str]:
    return {"sslnegotiation": asked.get("sslnegotiation", "postgres")}


def _by_the_machine(asked: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for bound in ("minimum", "maximum"):
        version = asked.get(f"ssl_{bound[:3]}_protocol_version")
        if version:
            setattr(context, f"{bound}_version", ssl.TLSVersion[version.replace(".", "_")])
    context.set_alpn_protocols(["postgresql"])
    _load(context, asked)
    return context


def _load(context: ssl.SSLContext, asked: Mapping[str, str]) -> None:
    """Load what the parameters name, as asyncpg does; raise OSError where a file cannot be used."""
    if asked.get("sslrootcert", SYSTEM) != SYSTEM:
        context.load_verify_locations(cafile=asked["sslrootcert"])
    if "sslcrl" in asked:
        context.load_verify_locations(cafile=asked["sslcrl"])
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    if "sslcert" in asked:
        context.load_cert_chain(
            asked["sslcert"], asked.get("sslkey"), password=lambda: asked.get("sslpassword", "")
        )


def _try_files(asked: Mapping[str, str], mode: str | None) -> None:
    for name in ("sslrootcert", "sslcrl", "sslcert"):
        if name in asked:
            try:
                _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), _of(name, asked))
            except OSError as error:  # ssl.SSLError is one
                what = "what is in it does not fit" if isinstance(error, ssl.SSLError) else error.strerror
                files = "sslcert and sslkey name files" if name == "sslcert" else f"{name} names a file"
                raise ValueError(f"cannot be used: {files} that cannot be loaded ({what})") from None
    if mode in MODES[4:] and "sslrootcert" not in asked and not _has_roots():
        raise ValueError(f"says sslmode={mode}, which needs sslrootcert: a file, or system")


def _of(name: str, asked: Mapping[str, str]) -> dict[str, str]:
    names = ("sslcert", "sslkey", "sslpassword") if name == "sslcert" else (name,)
    return {each: asked[each] for each in names if each in asked}


def _has_roots() -> bool:
    try:
        return (Path.home() / ".postgresql" / "root.crt").is_file()
    except (RuntimeError, PermissionError):
        return False
