"""What DATABASE_URL asks for is what the servers see."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import copytree

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from deploy.local.postgres import Postgres
from shared.postgres.database import create_engine, driver_connection
from shared.postgres.pooler import UnfitServerError
from shared.settings import DatabaseSettings
from tests.api.test_faults import silent_server
from tests.conftest import FAST
from tests.databases import MIGRATED
from tests.processes import free_port
from tests.shared.tls_server import CERTIFICATE, speaking_tls

REFUSED = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError)


@asynccontextmanager
async def lent(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Lend a connection as our processes open theirs."""
    settings = DatabaseSettings(database_url=SecretStr(url))
    engine = create_engine(settings, application_name="ours", pool_size=1, statement_timeout_seconds=30)
    try:
        async with driver_connection(engine) as connection:
            yield connection
    finally:
        await engine.dispose()


def at(database_url: str, *ports: int | None, query: str = "") -> str:
    """Return the URL with these ports of this machine in place of its own."""
    url = make_url(database_url)
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"postgresql://{url.username}:{url.password}@{hosts}/{url.database}{query}"


async def test_what_the_server_is_told_it_heeds_but_for_what_we_rely_on(database_url: str) -> None:
    options = ["geqo=off", "default_transaction_isolation=serializable", "statement_timeout=1s"]
    query = "?options=" + "%20".join(f"-c%20{option.replace('=', '%3D')}" for option in options)
    async with lent(f"{database_url}{query}&application_name=theirs") as connection:
        names = ("geqo", "transaction_isolation", "statement_timeout", "application_name")
        shown = [await connection.fetchval(f"SHOW {name}") for name in names]
    assert shown == ["off", "read committed", "30s", "ours"]


async def test_the_socket_is_watched_as_was_asked(database_url: str) -> None:
    async with lent(f"{database_url}?keepalives_idle=33&keepalives_count=4") as connection:
        own = connection._transport.get_extra_info("socket")  # noqa: SLF001
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 33
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4


async def test_tls_is_what_was_asked_for_or_there_is_no_connection(
    database_url: str, postgres: Postgres
) -> None:
    by_name = make_url(database_url).set(host="localhost")
    async with speaking_tls("127.0.0.1", postgres.port or 0) as (port, ciphers):
        trusted = f"sslrootcert={CERTIFICATE}"
        for query, connects in {
            "sslmode=require": True,
            f"sslmode=verify-ca&{trusted}": True,
            f"sslmode=require&{trusted}": True,
            f"sslmode=verify-full&{trusted}": False,  # the certificate is of another name
            "sslmode=verify-full&sslrootcert=system": False,
            "sslmode=require&ssl_min_protocol_version=TLSv1.3": True,
        }.items():
            ciphers.clear()
            url = at(by_name.render_as_string(hide_password=False), port, query=f"?{query}")
            if connects:
                async with lent(url) as connection:
                    assert await connection.fetchval("SELECT 1") == 1
                assert len(ciphers) == 1, query
            else:
                with pytest.raises(REFUSED):
                    async with lent(url):
                        pass


async def test_without_tls_at_the_other_end_no_password_leaves_us(database_url: str) -> None:
    async with lent(f"{database_url}?sslmode=prefer") as connection:
        assert await connection.fetchval("SELECT 1") == 1
    for mode in ("require", f"verify-ca&sslrootcert={CERTIFICATE}", "require&sslnegotiation=direct"):
        with pytest.raises(REFUSED):
            async with lent(f"{database_url}?sslmode={mode}"):
                pass


@pytest.fixture(scope="module")
def standby(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server in recovery, which takes no writes; it follows nobody."""
    directory = tmp_path_factory.mktemp("standby") / "postgres"
    copytree(cluster / "postgres", directory)
    (directory / "data" / "standby.signal").touch()
    with Postgres(directory, settings=FAST) as server:
        yield server


async def test_of_several_hosts_the_one_that_takes_writes_is_used_wherever_it_stands(
    standby: Postgres, postgres: Postgres
) -> None:
    reading, writing, nobody = standby.port, postgres.port, free_port()
    url = postgres.url_of(MIGRATED)  # both are copies of one server, its password included
    async with silent_server() as hanging:
        silent = int(hanging.rpartition(":")[2])
        for ports in ((writing, reading), (reading, writing), (nobody, writing)):
            async with lent(at(url, *ports)) as connection:
                assert await connection.fetchval("SELECT inet_server_port()") == writing
        async with lent(at(url, silent, writing, query="?connect_timeout=2")) as connection:
            assert await connection.fetchval("SELECT inet_server_port()") == writing


async def test_where_none_takes_writes_it_is_said_as_of_one(standby: Postgres, postgres: Postgres) -> None:
    reading, writing = standby.port, postgres.port
    url = postgres.url_of(MIGRATED)
    for query in ("", "?target_session_attrs=read-write", "?target_session_attrs=primary"):
        with pytest.raises(UnfitServerError, match="leads to a standby"):
            async with lent(at(url, reading, reading, query=query)):
                pass
    with pytest.raises(UnfitServerError, match="leads to a standby"):  # the first that answers, as was asked
        async with lent(at(url, reading, writing, query="?target_session_attrs=any")):
            pass
