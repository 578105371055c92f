"""Keys that collations order and equate in their own ways: no phantom, none lost, each compared once."""

import itertools

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from deploy.local.postgres import Postgres
from shared.postgres.database import create_engine
from shared.settings import CommandSettings
from tests.audit.pairs import audited, found, put_legacy, put_pair, put_synced
from tests.conftest import migrate
from tests.engines import HAS_ICU_DATABASES, LIBC
from tests.legacy_rows import seed

# Not every server has all of them: ICU is a choice of its build, en_US of its operating system. The
# sorting of these two is no plain comparison of bytes.
LOCALES = {
    "icu": "LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C'",
    "english": f"{LIBC} LOCALE 'en_US.utf8'",
    "bytes": f"{LIBC} LOCALE 'C'",
}
ALPHABET = ("a", "A", "b", "-", "_", "1", "10", "\u00e9", "e\u0301", " ")
KEYS = {"".join(letters) for size in (1, 2) for letters in itertools.product(ALPHABET, repeat=size)}
SLICES = 64  # one or two keys in each


async def create_database(url: str, name: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            f"CREATE DATABASE keys_{name} TEMPLATE template0 ENCODING UTF8 {LOCALES[name]}"
        )
    except (asyncpg.FeatureNotSupportedError, asyncpg.WrongObjectTypeError) as error:
        pytest.skip(f"the server has no such locale: {error}")
    finally:
        await connection.close()


async def check(url: str) -> None:
    """Audit every key in sync, and then with a difference at every third."""
    engine = create_engine(
        CommandSettings(database_url=SecretStr(url)),
        application_name="test",
        pool_size=2,
        statement_timeout_seconds=30,
    )
    connection = await asyncpg.connect(url)
    await seed(connection)
    wrong = set(sorted(KEYS)[::3])
    for key in KEYS - wrong:
        await put_pair(connection, key)
    run = await audited(engine, slices=SLICES)
    assert (run.verdict, run.compared) == ("in_sync", len(KEYS - wrong))
    for key in wrong:
        await put_legacy(connection, key)

    run = await audited(engine, slices=SLICES)

    assert run.chunks_done == run.chunks_planned == SLICES
    assert run.planned == run.compared == len(KEYS)
    assert await found(connection) == dict.fromkeys(wrong, "missing")
    await connection.close()
    await engine.dispose()


async def test_every_key_is_compared_once_in_the_default_locale(database_url: str) -> None:
    await check(database_url)


@pytest.mark.parametrize("name", [pytest.param("icu", marks=HAS_ICU_DATABASES), "english", "bytes"])
async def test_every_key_is_compared_once_in_the_locale(name: str, postgres: Postgres) -> None:
    await create_database(postgres.url, name)
    migrate(postgres.url_of(f"keys_{name}"))
    await check(postgres.url_of(f"keys_{name}"))


@pytest.mark.parametrize("slices", [1, 2, 16])
async def test_the_number_of_slices_changes_nothing(
    slices: int, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_synced(seeded, 50)
    await seeded.execute("DELETE FROM project_collections WHERE id % 7 = 0")

    run = await audited(engine, slices=slices)

    assert (run.compared, run.missing, len(await found(seeded))) == (50, 6, 6)
