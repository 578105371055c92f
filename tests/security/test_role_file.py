"""Running `deploy/roles.sql`, once and again, by whoever owns the database; and the limits that it sets."""

import asyncio
import secrets
import subprocess

import asyncpg
from sqlalchemy.engine import make_url

from deploy.local.postgres import Postgres
from shared.tables.outbox import metadata
from tests.conftest import migrate
from tests.databases import Databases
from tests.forked import ROOT
from tests.security.as_role import ROLES_SQL, connected, engine_of

GRANTED = """
    SELECT grantee::regrole::text, relname::text, attname::text, privilege_type
    FROM pg_class
    JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0
    CROSS JOIN LATERAL (VALUES (relacl), (attacl)) AS acl (items)
    CROSS JOIN LATERAL aclexplode(items)
    WHERE grantee::regrole::text LIKE 'collection\\_sync\\_%'
    ORDER BY 1, 2, 3, 4
"""
LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


async def test_the_database_after_another_run_is_the_same_and_what_was_granted_beside_it_is_gone(
    urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    del urls  # asked for so that the file was run
    before = await sql.fetch(GRANTED)
    await sql.execute("GRANT SELECT ON users TO collection_sync_reader")
    await sql.execute("GRANT UPDATE (description) ON collections TO collection_sync_worker")
    assert len(await sql.fetch(GRANTED)) > len(before)
    await sql.execute(ROLES_SQL)
    assert await sql.fetch(GRANTED) == before


async def test_every_table_of_ours_belongs_to_some_role(
    urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    del urls
    granted = {row["relname"] for row in await sql.fetch(GRANTED)}
    assert metadata.tables.keys() - granted == set()


async def test_psql_runs_the_file(database_url: str, postgres: Postgres, sql: asyncpg.Connection) -> None:
    script = ROOT / "deploy" / "roles.sql"
    psql = [str(postgres.binary("psql")), "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--file={script}"]
    done = await asyncio.to_thread(
        subprocess.run, [*psql, database_url], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert await sql.fetch(GRANTED)


async def test_an_owner_who_is_no_superuser_runs_the_file(
    databases: Databases, urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    """Logins that were made by somebody else are warned of: their limits are not the owner's to set."""
    owner, login = f"owner_{secrets.token_hex(4)}", f"sync_{secrets.token_hex(4)}"
    await sql.execute(f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD 'owner'")
    with databases.clone("template0") as database_url:
        url = make_url(database_url)
        await sql.execute(f"ALTER DATABASE {url.database} OWNER TO {owner}")
        owners = url.set(username=owner, password="owner").render_as_string(hide_password=False)
        await asyncio.to_thread(migrate, owners)
        async with connected(owners) as connection:
            await connection.execute(f"CREATE ROLE {login} LOGIN")
            await sql.execute(f"GRANT collection_sync_api TO {login}")
            warnings: list[str] = []
            connection.add_log_listener(lambda _, message: warnings.append(message.message))
            await connection.execute(ROLES_SQL)
            major = connection.get_server_version().major
            # Before 16, CREATEROLE is enough to alter any login that is no superuser's.
            not_ours = len(urls) if major >= 16 else 0
            of_the_scaler = 1 if not_ours else 0  # enable_sort
            of_the_schema = 0 if major >= 15 else 1  # before, public is not the database's owner's
            assert len(warnings) == not_ours * len(LIMITS) + of_the_scaler + of_the_schema, warnings
            settings = "SELECT cardinality(setconfig) FROM pg_db_role_setting WHERE setrole = $1::regrole"
            assert await connection.fetchval(settings, login) == len(LIMITS)
            await connection.execute(f"DROP ROLE {login}")
    await asyncio.to_thread(databases.execute, f"DROP ROLE {owner}")  # after the database that it owns


async def test_each_login_has_the_limits_of_its_role(urls: dict[str, str]) -> None:
    limits = {}
    for role, url in urls.items():
        async with connected(url) as connection:
            limits[role] = [await connection.fetchval(f"SHOW {name}") for name in LIMITS]
    assert limits == {
        "api": ["10s", "5s", "10s"],
        "worker": ["30s", "10s", "10s"],
        "operator": ["1min", "10s", "10s"],
        "reader": ["30s", "2s", "10s"],
        "scaler": ["2s", "1s", "10s"],
    }


async def test_a_limit_set_on_a_role_does_not_reach_its_members(
    urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    """Why the file sets the limits on the logins themselves."""
    await sql.execute("ALTER ROLE collection_sync_reader SET deadlock_timeout = '77s'")
    try:
        async with connected(urls["reader"]) as connection:
            assert await connection.fetchval("SHOW deadlock_timeout") == "1s"
    finally:
        await sql.execute("ALTER ROLE collection_sync_reader RESET ALL")


async def test_the_limits_of_our_own_sessions_win_over_those_of_the_login(urls: dict[str, str]) -> None:
    async with engine_of(urls["reader"]) as engine, engine.connect() as connection:
        shown = await connection.exec_driver_sql("SHOW statement_timeout")
        assert shown.scalar_one() == "10s"


async def test_a_login_that_has_its_role_since_the_last_run_has_no_limits_until_the_next(
    urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    """As the file says: run it once more after creating a login. Being in two roles gives the longer."""
    login = urls["api"].partition("//")[2].partition(":")[0]
    await sql.execute(f"GRANT collection_sync_operator TO {login}")
    async with connected(urls["api"]) as connection:
        assert await connection.fetchval("SHOW statement_timeout") == "10s"
    await sql.execute(ROLES_SQL)
    async with connected(urls["api"]) as connection:
        assert await connection.fetchval("SHOW statement_timeout") == "1min"
