"""What is looked at as other logins, on other servers and while others are at work; and what cannot be."""

import asyncio
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from deploy.local.postgres import Postgres
from shared.settings import Settings
from tests.conftest import migrate
from tests.databases import MIGRATED, Databases
from tests.preflight.conftest import OF_A_NEW_DATABASE, OF_THE_TESTS_SERVER, checked
from tests.processes import HANG_SECONDS
from tests.security.as_role import ROLES, ROLES_SQL, connected
from worker.preflight import examination
from worker.preflight.check import Found, Severity
from worker.preflight.checks import connections, server, vacuum
from worker.preflight.examination import DATABASE
from worker.preflight.needs import WORKER

LOCKED = "LOCK TABLE pg_catalog.pg_trigger IN ACCESS EXCLUSIVE MODE"
# Which check some of our logins may not make, and why.
UNSEEN = {
    "worker": {"schema"},  # the revision
    "api": {"sequences", "ids"},  # the sequence of the target
    "reader": {"sequences", "ids"},
    "scaler": {"schema", "redis_sharing", "sequences", "ids", "capture", "reads"},
}


def at(settings: Settings, url: str) -> Settings:
    return settings.model_copy(
        update={"database_url": SecretStr(url.replace("postgresql:", "postgresql+asyncpg:"))}
    )


@pytest.mark.parametrize("role", ROLES)
async def test_each_login_sees_that_nothing_stops_or_says_what_it_may_not_see(
    role: str, urls: dict[str, str], settings: Settings
) -> None:
    made = await checked(at(settings, urls[role]))
    unseen = {name for name, check in made.items() if check.sentence.startswith("could not look")}
    assert unseen == UNSEEN.get(role, set())
    assert {name for name, check in made.items() if check.state} - unseen == OF_THE_TESTS_SERVER


async def test_a_login_in_none_of_the_roles_is_told_so(
    urls: dict[str, str], settings: Settings, sql: asyncpg.Connection
) -> None:
    login = make_url(urls["worker"]).username
    await sql.execute(f"REVOKE {WORKER} FROM {login}; ALTER TABLE outbox_events ENABLE ROW LEVEL SECURITY")
    made = await checked(at(settings, urls["worker"]))
    assert (made["roles"].state, made["row_security"].state) == (Severity.STOP, Severity.STOP)
    assert made["roles"].sentence.startswith(f"{login} is in none of our roles")
    assert f"may hide rows from {login}" in made["row_security"].sentence


async def test_an_owner_who_is_no_superuser_sees_everything(
    databases: Databases, settings: Settings, sql: asyncpg.Connection
) -> None:
    """First with processes that log in as the owner, then with roles that it may give, but is not in."""
    owner = f"owner_{secrets.token_hex(4)}"
    await sql.execute(f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD 'owner'; {ROLES_SQL}")
    if sql.get_server_version().major >= 16:
        await sql.execute(f"GRANT {WORKER} TO {owner} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
    with databases.clone("template0") as url:
        owners = make_url(url).set(username=owner, password="owner")
        await sql.execute(f"ALTER DATABASE {owners.database} OWNER TO {owner}")
        address = owners.render_as_string(hide_password=False)
        await asyncio.to_thread(migrate, address)
        made = await checked(at(settings, address))
        assert {name for name, check in made.items() if check.state} == OF_A_NEW_DATABASE
        async with connected(address) as connection:
            await connection.execute(ROLES_SQL)
        made = await checked(at(settings, address))
        troubled = {name: check.sentence for name, check in made.items() if check.state}
        assert troubled.keys() == OF_A_NEW_DATABASE | {"other_writers"}
        assert troubled["other_writers"].startswith(f"{owner}, which is none of our logins, may write")
    await asyncio.to_thread(databases.execute, f"DROP ROLE {owner}")  # after the database that it owns


async def test_a_check_that_cannot_look_is_not_fine(settings: Settings, sql: asyncpg.Connection) -> None:
    """Whoever holds a catalogue keeps us from reading it."""
    async with sql.transaction():
        await sql.execute(LOCKED)
        made = await checked(settings)
    assert made["triggers"].state is Severity.WARN
    assert made["triggers"].sentence.startswith("could not look: ")
    assert made["writable"].state is Severity.OK


async def test_no_check_can_change_anything(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def write(connection: asyncpg.Connection) -> Found:
        await connection.execute("CREATE TABLE something ()")
        return Found("It was written.")

    monkeypatch.setattr(examination, "DATABASE", {"writes": write})
    assert (await checked(settings))["writes"].sentence == "could not look: read only sqltransaction"


async def test_a_server_that_does_not_answer_is_one_stop_and_nothing_else_is_known(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    monkeypatch.setattr(examination, "CONNECT_SECONDS", 0.2)
    silent = await asyncio.start_server(answer_nothing, "127.0.0.1")
    async with silent:
        port = silent.sockets[0].getsockname()[1]
        made = await checked(at(settings, f"postgresql://nobody:secret@127.0.0.1:{port}/nowhere"))
    assert made["database"].state is Severity.STOP
    assert "it took too long" in made["database"].sentence
    assert {made[name].sentence for name in DATABASE} == {"could not look: PostgreSQL was not reached"}
    assert made["redis_listening"].state is Severity.OK


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"port": 1}, "cannot be reached"),
        ({"password": "hunter2"}, "refuses the password"),
        ({"database": "nowhere"}, "has no such database"),
    ],
)
async def test_why_a_server_cannot_be_reached_is_said_without_the_password(
    change: Mapping[str, Any], words: str, settings: Settings, database_url: str
) -> None:
    url = make_url(database_url).set(**change).render_as_string(hide_password=False)
    made = await checked(at(settings, url))
    assert made["database"].state is Severity.STOP
    assert words in made["database"].sentence
    assert made["database"].fix
    assert "hunter2" not in str(made)


async def test_a_session_that_leaves_a_transaction_open_is_named(
    settings: Settings, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vacuum, "OLD_SECONDS", 0)
    async with sql.transaction():
        await sql.execute("CREATE TABLE something ()")
        check = (await checked(settings))["held_back"]
    assert check.state is Severity.WARN
    assert check.fix is not None
    assert f"SELECT pg_terminate_backend({sql.get_server_pid()});" in check.fix.splitlines()


async def test_connections_that_are_left_are_held_against_those_that_are_needed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "NEEDED", {"collection_sync_api": 1_000})
    check = (await checked(settings))["connections"]
    assert check.state is Severity.WARN
    assert "connections left" in check.sentence


@pytest.mark.parametrize(
    ("limit", "value", "check", "words"),
    [
        ("WORN_IDS", 0, "wraparound", "the server refuses every write"),
        ("MOST_APART_SECONDS", -1, "clock", "s apart"),
        ("MOST_APART_SECONDS", -1, "redis_clock", "Redis's host"),
        ("FIRST_SUPPORTED", 99, "server", "is too old"),
    ],
)
async def test_what_only_time_brings_is_judged_by_its_limit(  # noqa: PLR0917 - a row of the table
    limit: str, value: int, check: str, words: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, limit, value)
    made = (await checked(settings))[check]
    assert made.state
    assert words in made.sentence


@pytest.mark.wide
async def test_a_standby_one_that_is_missing_and_what_was_prepared_are_named(
    cluster: Path, services: Path, settings: Settings
) -> None:
    """A copy of the tests' cluster: first as a primary whose commits wait, then as a standby."""
    data = services / "other"
    shutil.copytree(cluster / "postgres", data)
    options = {"max_prepared_transactions": "2", "fsync": "off"}
    with Postgres(data, settings={**options, "synchronous_standby_names": "gone"}) as other:
        connection = await asyncpg.connect(other.url_of(MIGRATED))
        await connection.execute("SET synchronous_commit = local")
        await connection.execute("BEGIN; CREATE TABLE something (); PREPARE TRANSACTION 'it''s forgotten'")
        await connection.close()
        made = await checked(at(settings, other.url_of(MIGRATED)))
        assert made["held_back"].state is Severity.WARN
        assert made["held_back"].fix == "ROLLBACK PREPARED 'it''s forgotten';"
        assert made["durability"].state is Severity.STOP
        assert "waits for a standby" in made["durability"].sentence
    (data / "data" / "standby.signal").touch()
    with Postgres(data, settings=options) as standby:
        async with asyncio.timeout(HANG_SECONDS):
            made = await checked(at(settings, standby.url_of(MIGRATED)))
    assert made["writable"].state is Severity.STOP
    assert "leads to a standby" in made["writable"].sentence
    assert made["columns"].state is Severity.OK
