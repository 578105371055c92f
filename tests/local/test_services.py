import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from deploy.local import service
from deploy.local.children import command_of
from deploy.local.errors import LocalError
from deploy.local.postgres import BINARIES_VARIABLE, Postgres, find_binaries
from deploy.local.service import Service
from deploy.local.valkey import SERVER_VARIABLE, Valkey, find_server
from tests.local.starts import eventually, gone
from tests.processes import HANG_SECONDS


def ask(url: str, query: str) -> object:
    """Return the one value that a query gives."""

    async def run() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(run())


def set_greeting(url: str, text: str) -> None:
    with Redis.from_url(url) as client:
        client.set("greeting", text)


def greeting(url: str) -> object:
    with Redis.from_url(url) as client:
        return client.get("greeting")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("local") / "a place", settings={"work_mem": "5MB"}) as server:
        yield server


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "a place") as server:
        yield server


def test_postgres_keeps_its_data_and_its_port_when_restarted(postgres: Postgres) -> None:
    url = postgres.url
    ask(url, "CREATE TABLE kept AS SELECT 1 AS one")
    postgres.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(url, "SELECT 1")
    postgres.start()
    assert postgres.url == url
    assert ask(url, "SELECT count(*) FROM kept") == 1


def test_postgres_starts_again_after_it_was_killed(postgres: Postgres) -> None:
    ask(postgres.url, "CREATE TABLE survived AS SELECT 1 AS one")
    os.kill(postgres.pid, signal.SIGKILL)
    postgres.start()
    assert ask(postgres.url, "SELECT count(*) FROM survived") == 1


def test_postgres_starts_inside_a_running_event_loop(postgres: Postgres) -> None:
    async def restart() -> None:
        postgres.stop()
        postgres.start()

    asyncio.run(restart())
    assert ask(postgres.url, "SELECT 1") == 1


def test_postgres_listens_on_the_loopback_address_alone(postgres: Postgres) -> None:
    assert ask(postgres.url, "SHOW listen_addresses") == "127.0.0.1"
    assert ask(postgres.url, "SHOW unix_socket_directories") == ""


def test_postgres_takes_settings_and_stores_utf8(postgres: Postgres) -> None:
    assert ask(postgres.url, "SHOW work_mem") == "5MB"
    assert ask(postgres.url, "SHOW max_connections") == "100"
    assert ask(postgres.url, "SHOW server_encoding") == "UTF8"


@pytest.mark.since(17, "locale of its own")
def test_postgres_knows_letters_whatever_locales_the_system_has(postgres: Postgres) -> None:
    assert ask(postgres.url, "SELECT upper('é')") == "É"


def test_postgres_names_other_databases_and_client_programs(postgres: Postgres) -> None:
    ask(postgres.url, "CREATE DATABASE another")
    assert ask(postgres.url_of("another"), "SELECT current_database()") == "another"
    version = subprocess.run([postgres.binary("pg_dump"), "--version"], capture_output=True, check=True)
    assert version.stdout.startswith(b"pg_dump")
    with pytest.raises(LocalError, match="no pg_nonsense"):
        postgres.binary("pg_nonsense")


def test_valkey_keeps_its_port_and_nothing_else_when_restarted(valkey: Valkey) -> None:
    url = valkey.url
    set_greeting(url, "hello")
    valkey.stop()
    valkey.start()
    assert valkey.url == url
    assert greeting(url) is None


def test_a_frozen_server_is_stopped_all_the_same(valkey: Valkey) -> None:
    pid = valkey.pid
    os.kill(pid, signal.SIGSTOP)
    valkey.stop()
    assert gone([pid])


def test_a_wrong_password_is_refused(postgres: Postgres, valkey: Valkey) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        ask(postgres.url.replace(postgres.password, "wrong"), "SELECT 1")
    with pytest.raises(AuthenticationError):
        greeting(valkey.url.replace(valkey.password, "wrong"))


def test_passwords_stand_in_files_for_their_owner_only(postgres: Postgres, valkey: Valkey) -> None:
    servers: list[Service] = [postgres, valkey]
    for server in servers:
        assert len(server.password) >= 32
        assert server.password_file.stat().st_mode & 0o077 == 0
        assert server.password not in command_of(server.pid)
        assert server.password not in server.log.read_text()
        others = [
            file for file in server.directory.iterdir() if file.is_file() and file.stat().st_mode & 0o077
        ]
        assert not [file for file in others if server.password in file.read_text()]


def test_two_directories_serve_at_once(valkey: Valkey, tmp_path: Path) -> None:
    with Valkey(tmp_path / "another place") as other:
        set_greeting(valkey.url, "one")
        set_greeting(other.url, "two")
        assert (greeting(valkey.url), greeting(other.url)) == (b"one", b"two")


def test_a_second_start_on_a_directory_is_refused_at_once(postgres: Postgres) -> None:
    with pytest.raises(LocalError, match=rf"in use by process {os.getpid()}\. Stop that process"):
        Postgres(postgres.directory).__enter__()
    assert ask(postgres.url, "SELECT 1") == 1


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match="file/valkey cannot be used: Not a directory"):
        Valkey(tmp_path / "file" / "valkey").__enter__()


def test_a_port_that_was_taken_meanwhile_is_left_to_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = service.free_port()
    with socket.create_server(("127.0.0.1", 0)) as owner:
        ports = iter([owner.getsockname()[1], free])
        monkeypatch.setattr(service, "free_port", lambda: next(ports))
        with Valkey(tmp_path / "valkey") as server:
            assert server.port == free


def test_a_server_that_ends_at_its_start_shows_why(postgres: Postgres) -> None:
    directory = postgres.directory.with_name("misconfigured")
    with pytest.raises(LocalError, match='unrecognized configuration parameter "nonsense"') as raised:
        Postgres(directory, settings={"nonsense": "1"}).__enter__()
    assert f"Delete {directory} to begin anew" in str(raised.value)
    assert "set DATABASE_URL" in str(raised.value)
    with Postgres(directory) as server:  # nothing is held back
        assert ask(server.url, "SELECT 1") == 1


def test_a_server_that_ends_later_is_noticed(valkey: Valkey) -> None:
    valkey.check()
    os.kill(valkey.pid, signal.SIGKILL)
    os.waitid(os.P_PID, valkey.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(LocalError, match="Valkey ended unexpectedly"):
        valkey.check()


def test_a_creation_that_was_cut_short_is_begun_anew(tmp_path: Path) -> None:
    unfinished = tmp_path / "postgres" / "data.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    with Postgres(tmp_path / "postgres") as server:
        assert ask(server.url, "SELECT 1") == 1
        assert not unfinished.exists()


def test_a_server_that_outlived_its_parent_is_ended_first(tmp_path: Path) -> None:
    with Valkey(tmp_path / "valkey") as first:
        untied = first.command(service.free_port())
    with subprocess.Popen(untied, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as leftover:
        assert eventually(lambda: str(tmp_path) in command_of(leftover.pid))  # a moment after it was started
        (tmp_path / "valkey" / "pid").write_text(str(leftover.pid))
        with Valkey(tmp_path / "valkey") as second:
            set_greeting(second.url, "hello")
            assert leftover.wait(HANG_SECONDS) is not None


def test_another_process_with_the_same_id_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "valkey").mkdir()
    with subprocess.Popen(["/bin/sleep", "60"]) as stranger:
        (tmp_path / "valkey" / "pid").write_text(str(stranger.pid))
        with Valkey(tmp_path / "valkey"):
            assert stranger.poll() is None
        stranger.kill()


def test_without_setpriv_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(LocalError, match=r"setpriv is missing\. Install util-linux"):
        Postgres(tmp_path / "postgres").__enter__()


def test_servers_on_path_do_where_the_wheels_are_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(BINARIES_VARIABLE, raising=False)
    if shutil.which("postgres") is None:
        monkeypatch.setenv("PATH", str(find_binaries()), prepend=os.pathsep)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with Postgres(tmp_path / "postgres") as server:
        assert str(server.binary("postgres")) == str(Path(str(shutil.which("postgres"))).resolve())
        assert ask(server.url, "SHOW server_encoding") == "UTF8"


def test_the_server_that_a_variable_names_is_taken_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where clients are not installed beside it: those of the wheel do for it."""
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "postgres").symlink_to(find_binaries() / "postgres")
    monkeypatch.setenv(BINARIES_VARIABLE, str(bare))
    server = Postgres(tmp_path / "postgres")
    assert server.binary("postgres") == bare / "postgres"
    assert server.binary("psql").exists()
    redis = tmp_path / "redis"
    redis.symlink_to(find_server())
    monkeypatch.setenv(SERVER_VARIABLE, str(redis))
    with Valkey(tmp_path / "valkey") as valkey:
        assert valkey.command(1)[0] == str(redis)
    monkeypatch.setenv(BINARIES_VARIABLE, "/nowhere")
    with pytest.raises(LocalError, match="no PostgreSQL in /nowhere, which POSTGRES_BINARIES names"):
        Postgres(tmp_path)
    monkeypatch.setenv(SERVER_VARIABLE, "/nowhere")
    with pytest.raises(LocalError, match="no /nowhere, which REDIS_SERVER names"):
        Valkey(tmp_path)


def test_with_neither_wheels_nor_servers_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(BINARIES_VARIABLE, raising=False)
    monkeypatch.delenv(SERVER_VARIABLE, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(LocalError, match=r"no PostgreSQL\. Run `make venv`, or set DATABASE_URL"):
        Postgres(tmp_path)
    with pytest.raises(LocalError, match=r"no Valkey\. Run `make venv`, or set REDIS_URL"):
        Valkey(tmp_path)
