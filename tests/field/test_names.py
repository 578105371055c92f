"""The journey in databases that are called, encoded and entered otherwise."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import URL, make_url

from deploy.local.postgres import Postgres
from tests.conftest import migrate
from tests.engines import LIBC
from tests.field.journey import Journey
from tests.legacy_rows import seed
from tests.phase1.script import BEFORE_PHASE_1
from tests.security.as_role import connected, make_logins

ODD = 'Odd %2F "name" @:/?#'  # ASCII: databases of all encodings share names
CASES = [
    pytest.param("ENCODING 'UTF8'", id="odd names"),
    pytest.param("ENCODING 'LATIN1'", id="LATIN1", marks=pytest.mark.long),
    pytest.param("ENCODING 'SQL_ASCII'", id="SQL_ASCII", marks=pytest.mark.long),
]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.fixture
async def url(postgres: Postgres, request: pytest.FixtureRequest) -> AsyncIterator[URL]:
    """Make a migrated database of an odd name, with these options, and drop it in the end."""
    async with connected(postgres.url) as server:
        options = f"TEMPLATE template0 {LIBC} LOCALE 'C' {request.param}"
        await server.execute(f"CREATE DATABASE {quoted(ODD)} {options}")
        url = make_url(postgres.url).set(database=ODD)
        migrate(shown(url))
        yield url
        await server.execute(f"DROP DATABASE {quoted(ODD)} WITH (FORCE)")
        for role in await server.fetch("SELECT rolname FROM pg_roles WHERE rolname LIKE 'Odd %'"):
            await server.execute(f"DROP ROLE {quoted(role['rolname'])}")


def shown(url: URL) -> str:
    return url.render_as_string(hide_password=False)


async def with_odd_names(sql: asyncpg.Connection, urls: dict[str, str]) -> dict[str, str]:
    """Rename the logins, which keep their passwords."""
    renamed = {}
    for role, url in urls.items():
        name = f"{ODD} {role}"
        await sql.execute(f"ALTER ROLE {make_url(url).username} RENAME TO {quoted(name)}")
        renamed[role] = shown(make_url(url).set(username=name))
    return renamed


@pytest.mark.parametrize("url", CASES, indirect=True)
async def test_names_and_encodings_of_databases_are_no_hindrance(
    url: URL, redis_url: str, tmp_path: Path
) -> None:
    async with connected(shown(url)) as sql:
        await seed(sql)
        await sql.execute(BEFORE_PHASE_1)
        urls = await with_odd_names(sql, await make_logins(sql, shown(url)))
        journey = Journey(sql, urls, redis_url, tmp_path / "log")
        await journey.travel("p1")
    assert journey.refusals == []
