"""DATABASE_URL means to us what it means to libpq, or is refused by the name of what cannot be done."""

import getpass
import os
import socket
import ssl
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from asyncpg.connect_utils import _parse_connect_dsn_and_args

from shared.postgres.address import Address, forget_closed_home, read_address
from shared.postgres.libpq_parameters import HONOURED, LIBPQ_ALONE, ONLY, OURS, POOLERS, VARIABLES
from tests.processes import HANG_SECONDS

NOBODY = 65_534
CERTIFICATE = Path(__file__).with_name("certificate.pem")
NOTHING = dict.fromkeys(
    ("host", "port", "user", "password", "passfile", "database", "ssl", "service", "servicefile")
)
UNSAID = dict.fromkeys(
    ("direct_tls", "server_settings", "target_session_attrs", "krbsrvname", "gsslib", "dsn")
)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("PG"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def understood(address: Address) -> tuple[list[Any], Any]:
    """Return the places and parameters that asyncpg makes of what it is given."""
    url = address.url
    who = {"user": url.username, "password": url.password, "database": url.database}
    places: list[Any] = []
    for host in address.hosts:
        at, parameters = _parse_connect_dsn_and_args(
            **{**NOTHING, **UNSAID, **who, **host, **address.arguments}
        )
        places += at
    return places, parameters


PLACES = {
    "postgres://u:p@h:5/d": ([("h", 5)], "u", "p", "d"),
    "postgresql+asyncpg://u:p@h/d": ([("h", 5432)], "u", "p", "d"),
    "postgresql://u:p%40%3A%2F%25@h/d": ([("h", 5432)], "u", "p@:/%", "d"),
    "postgresql://u:a:b#c?d&e=f@h/d": ([("h", 5432)], "u", "a:b#c?d&e=f", "d"),
    "postgresql://u:100%@h/d": ([("h", 5432)], "u", "100%", "d"),
    "postgresql://u@h": ([("h", 5432)], "u", None, "u"),
    "postgresql://u:p@[2001:db8::1]:5/d%20e": ([("2001:db8::1", 5)], "u", "p", "d e"),
    "postgresql://u@%2Frun%2Fpg:5/d": (["/run/pg/.s.PGSQL.5"], "u", None, "d"),
    "postgresql://u@/d?host=/run/pg&port=7": (["/run/pg/.s.PGSQL.7"], "u", None, "d"),
    "postgresql://?host=h&user=u&password=p+q&dbname=d": ([("h", 5432)], "u", "p+q", "d"),
    "postgresql://u@a:1,b:2,c/d": ([("a", 1), ("b", 2), ("c", 5432)], "u", None, "d"),
    "postgresql://u@a,b/d?port=7": ([("a", 7), ("b", 7)], "u", None, "d"),
}


@pytest.mark.parametrize("url", PLACES)
def test_a_url_leads_where_it_leads_libpq(url: str) -> None:
    places, parameters = understood(read_address(url))
    assert (places, parameters.user, parameters.password, parameters.database) == PLACES[url]


NO_URLS = [
    "nonsense",
    "h:5432",
    "mysql://u:canary@h/d",
    "postgresql:/h/d",
    "postgresql://u:p@canary:w0rd@h:5432/d",
    "postgresql://u:p/canary@h:5432/d",
    "postgresql://u:12/canary@h:5432/d",
    "postgresql://u:p@ss/canary@h/d",
    "postgresql://u:p@ss?canary=1@h/d",
    "postgresql://u:p@h:70000/d",
    "postgresql://u:p@h:0/d",
    "postgresql://u:p@h:canary/d",
    "postgresql://u:p@h:/d",
    "postgresql://u:p@h/d?port=canary",
    "postgresql://u:p@::1/d",
    "postgresql://u:p@[canary]/d",
    "postgresql://u:p@[::1/d",
    "postgresql://u:p@a,,b/d",
    "postgresql://u:p@a,b,c/d?port=1,2",
    "postgresql://u:p@a:1/d?port=1",
    "postgresql://u:can\nary@h/d",
    "postgresql://u:%00canary@h/d",
    "postgresql://u:%ffcanary@h/d",
    os.fsdecode(b"postgresql://u:\xffcanary@h/d"),
    "postgresql://u:p@h/d?canary",
    "postgresql://u:p@h/d?sslmode=require&sslmode=disable",
    "postgresql://u:p@h/d?sslmode=canary",
    "postgresql://u:p@h/d?ssl=false",
    "postgresql://u:p@h/d?ssl=true&sslmode=disable",
    "postgresql://u:p@h/d?connect_timeout=canary",
    "postgresql://u:p@h/d?keepalives_idle=canary",
    "postgresql://u:p@h/d?keepalives_idle=999999999",
    "postgresql://u:p@h/d?target_session_attrs=standby",
    "postgresql://u:p@h/d?target_session_attrs=canary",
    "postgresql://u:p@h/d?sslnegotiation=direct",
    "postgresql://u:p@h/d?sslrootcert=system&sslmode=require",
    "postgresql://u:p@h/d?sslmode=verify-full",
    "postgresql://u:p@h/d?sslmode=verify-ca&sslrootcert=/canary",
    "postgresql://u:p@h/d?sslcert=/canary",
    "postgresql://u:p@h/d?ssl_min_protocol_version=SSLv3",
]


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_such_url_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ValueError, match=r"^[a-z]") as refused:
        read_address(url)
    assert "canary" not in str(refused.value)
    assert "w0rd" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_was_escaped_is_what_one_is_told_to_do() -> None:
    with pytest.raises(ValueError, match="escape @ : / in user and password"):
        read_address("postgresql://u:p@ss:w0rd@h:5432/d")


PROVIDERS = {
    "RDS": "?sslmode=require",
    "Heroku": "?sslmode=require&connect_timeout=10",
    "DigitalOcean": "?sslmode=require&application_name=app",
    "Supabase": "?sslmode=require&options=-c%20geqo%3Doff",
    "Railway": "",
    "Django": "?keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=5",
    "psql": "?gssencmode=disable&sslsni=1&channel_binding=prefer&client_encoding=utf8",
    "JDBC": "?ssl=true",
}


@pytest.mark.parametrize("query", PROVIDERS.values(), ids=PROVIDERS)
def test_what_platforms_hand_out_is_taken(query: str) -> None:
    _, parameters = understood(read_address(f"postgresql://u:p@h/d{query}"))
    assert bool(parameters.ssl)
    assert parameters.sslmode.name == (
        "prefer" if "require" not in query and "true" not in query else "require"
    )
    assert parameters.server_settings is None  # which a server would refuse


def test_what_the_server_is_to_be_told_it_is_told() -> None:
    address = read_address("postgresql://u@h/d?options=-c%20geqo%3Doff&application_name=theirs")
    assert address.server_settings == {
        "options": "-c geqo=off"
    }  # the name is ours: pg_stat_activity shows it


def test_a_client_may_be_told_to_wait_less() -> None:
    waits = {None: None, "0": None, "-1": None, "3": 3, "10": 10}
    for said, expected in waits.items():
        query = "" if said is None else f"?connect_timeout={said}"
        assert read_address(f"postgresql://u@h/d{query}").connect_timeout_seconds == expected


def test_the_socket_is_watched_as_was_asked() -> None:
    on = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    off = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
    count = (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    asked = {
        "": (),
        "?keepalives=1": (on,),
        "?keepalives_count=4": (on, count),
        "?keepalives=0&keepalives_count=4": (off,),
    }
    for query, options in asked.items():
        assert read_address(f"postgresql://u@h/d{query}").keep_alive == options


def test_no_parameter_is_passed_over_in_silence() -> None:
    for name in (*LIBPQ_ALONE, *POOLERS, "nonsense", "sslmod"):
        with pytest.raises(ValueError, match=rf"\b{name}\b.*take it out"):
            read_address(f"postgresql://u:p@h/d?{name}=x")
    for name, values in ONLY.items():
        for value in values:
            read_address(f"postgresql://u:p@h/d?{name}={value}")
        with pytest.raises(ValueError, match=rf"\b{name}\b.* say {values[0]}"):
            read_address(f"postgresql://u:p@h/d?{name}=require")
    assert not HONOURED & (LIBPQ_ALONE | OURS | POOLERS | ONLY.keys())


def test_protection_that_asyncpg_cannot_give_is_refused_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("channel_binding", "require_auth", "requirepeer", "gssencmode", "sslcrldir", "sslcertmode"):
        for query, variable, called in ((f"?{name}=require", "", name), ("", "require", VARIABLES[name])):
            monkeypatch.setenv(VARIABLES[name], variable)
            with pytest.raises(ValueError, match=rf"\b{called}\b"):
                read_address(f"postgresql://u:p@h/d{query}")
        monkeypatch.delenv(VARIABLES[name])


def test_libpqs_variables_count_where_the_url_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"PGHOST": "a,b", "PGPORT": "1,2", "PGUSER": "me", "PGDATABASE": "db", "PGSSLMODE": "require"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    places, parameters = understood(read_address("postgresql://"))
    assert (places, parameters.user, parameters.database) == ([("a", 1), ("b", 2)], "me", "db")
    assert parameters.sslmode.name == "require"
    places, parameters = understood(read_address("postgresql://u@h:5/d?sslmode=disable"))
    assert (places, parameters.user, parameters.database) == ([("h", 5)], "u", "d")
    assert parameters.sslmode.name == "disable"


@pytest.mark.parametrize("variable", ["PGPORT", "PGSSLMODE", "PGTARGETSESSIONATTRS", "PGSSLROOTCERT"])
def test_wrong_ones_are_refused_at_once(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "canary")
    monkeypatch.setenv("PGSSLMODE", os.environ.get("PGSSLMODE", "verify-full"))
    with pytest.raises(ValueError, match=rf"\(with .*\b{variable}\b.*, of which the URL") as refused:
        read_address("postgresql://u@h/d")
    assert "canary" not in str(refused.value)
    monkeypatch.setenv(variable, "can\nary")
    with pytest.raises(ValueError, match=variable):
        read_address("postgresql://u@h/d")


def test_who_has_no_name_must_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError

    monkeypatch.setattr(getpass, "getuser", nameless)
    read_address("postgresql://u@h/d")
    with pytest.raises(ValueError, match="names no user"):
        read_address("postgresql://h/d")


def test_of_several_hosts_one_that_takes_writes_is_wanted_unless_any_will_do() -> None:
    wanted = {
        "postgresql://u@h/d": "any",
        "postgresql://u@a,b/d": "read-write",
        "postgresql://u@a,b/d?target_session_attrs=any": "any",
        "postgresql://u@a,b/d?target_session_attrs=primary": "primary",
    }
    for url, attributes in wanted.items():
        assert understood(read_address(url))[1].target_session_attrs == attributes


def test_tls_is_never_weaker_than_was_asked_for() -> None:
    anything, the_chain, the_name = (
        (ssl.CERT_NONE, False),
        (ssl.CERT_REQUIRED, False),
        (ssl.CERT_REQUIRED, True),
    )
    asked = {
        "sslmode=prefer": anything,
        "sslmode=require": anything,
        f"sslmode=require&sslrootcert={CERTIFICATE}": the_chain,
        f"sslmode=verify-ca&sslrootcert={CERTIFICATE}": the_chain,
        f"sslmode=verify-full&sslrootcert={CERTIFICATE}": the_name,
        "sslmode=verify-full&sslrootcert=system": the_name,
        "sslrootcert=system": the_name,
        f"sslmode=verify-full&sslrootcert=system&sslcert={CERTIFICATE}&sslkey={CERTIFICATE}": the_name,
    }
    for query, expected in asked.items():
        _, parameters = understood(
            read_address(f"postgresql://u@h/d?{query}&ssl_min_protocol_version=TLSv1.3")
        )
        assert (parameters.ssl.verify_mode, parameters.ssl.check_hostname) == expected, query
        assert parameters.ssl.minimum_version is ssl.TLSVersion.TLSv1_3
        assert parameters.sslmode.name in {query.partition("&")[0][8:].replace("-", "_"), "require"}


def test_a_certificate_of_the_home_counts_as_for_libpq(tmp_path: Path) -> None:
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql" / "root.crt").write_bytes(CERTIFICATE.read_bytes())
    _, parameters = understood(read_address("postgresql://u@h/d?sslmode=verify-full"))
    assert parameters.ssl.check_hostname


def test_files_are_tried_at_once(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for query in (
        f"sslrootcert={empty}",
        f"sslcrl={empty}",
        f"sslcert={empty}",
        f"sslcert={CERTIFICATE}&sslkey={empty}",
    ):
        with pytest.raises(ValueError, match=r"^cannot be used: .*what is in it does not fit"):
            read_address(f"postgresql://u@h/d?{query}")
        read_address(f"postgresql://u@h/d?sslmode=disable&{query}")


def test_a_home_that_may_not_be_entered_is_done_without(tmp_path: Path) -> None:
    """In a process of its own, which is nobody's where this one is root's: root may enter everything."""
    forget_closed_home()
    assert os.environ["HOME"] == str(tmp_path)
    (tmp_path / "closed").mkdir(mode=0o000)
    process = get_context("forkserver").Process(target=without_entry, args=[str(tmp_path / "closed")])
    process.start()
    process.join(HANG_SECONDS)
    assert process.exitcode == 0
    process.close()


def without_entry(home: str) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    os.environ["HOME"] = home
    with pytest.raises(PermissionError):
        understood(read_address("postgresql://u@h/d"))
    forget_closed_home()
    assert understood(read_address("postgresql://u@h/d"))[1].sslmode.name == "prefer"
    assert understood(read_address("postgresql://u@h/d?sslmode=require"))[1].sslmode.name == "require"
