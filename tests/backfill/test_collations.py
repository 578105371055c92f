"""Databases order keys in their own ways; every key is looked at exactly once in each."""

import itertools

import asyncpg
import pytest
from pydantic import SecretStr

from deploy.local.postgres import Postgres
from shared.postgres.database import create_engine
from shared.settings import CommandSettings
from tests.backfill.driving import backfilled
from tests.backfill.rows import enqueued, fix_chunk_size
from tests.conftest import migrate
from tests.draining import drain
from tests.drift import drift
from tests.engines import HAS_ICU_DATABASES, LIBC
from tests.legacy_rows import seed

NAME = "ordered_otherwise"
ICU = "LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"  # a-1 < a_1 < A-1 < b; C has A-1 < a-1 < a_1 < b
ENGLISH = f"{LIBC} LOCALE 'en_US.utf8'"
BY_BYTES = f"{LIBC} LOCALE 'C'"
KEYS = [
    *("".join(letters) for letters in itertools.product("aB-_9", "Ab_-", ("", "c", "-C", "_1"))),
    *(
        "col-1",
        "col_1",
        "COL-1",
        "Col_1",
        "col1",
        "col-10",
        "col-2",
        "é",
        "e\u0301",
        "Z",
        "z",
        "~",
        "A b",
        "ab ",
    ),
]


@pytest.mark.parametrize(
    "locale",
    [
        pytest.param(ICU, id="icu", marks=HAS_ICU_DATABASES),
        pytest.param(ENGLISH, id="english"),
        pytest.param(BY_BYTES, id="by bytes"),
    ],
)
async def test_no_key_is_skipped_or_taken_twice_whatever_the_database_s_order(
    locale: str, postgres: Postgres
) -> None:
    server = await asyncpg.connect(postgres.url)
    try:
        await create_database(server, locale)
        migrate(postgres.url_of(NAME))
        await fill_and_backfill(postgres.url_of(NAME))
    finally:
        await server.execute(f'DROP DATABASE IF EXISTS "{NAME}" WITH (FORCE)')
        await server.close()


async def create_database(server: asyncpg.Connection, locale: str) -> None:
    try:
        await server.execute(f'CREATE DATABASE "{NAME}" TEMPLATE template0 ENCODING UTF8 {locale}')
    except (asyncpg.FeatureNotSupportedError, asyncpg.WrongObjectTypeError) as error:
        pytest.skip(f"the server has no such locale: {error}")


async def fill_and_backfill(url: str) -> None:
    sql = await asyncpg.connect(url)
    await seed(sql)
    await sql.execute(
        "INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)"
        " SELECT key, 'p1', 'name', 'owner', true FROM unnest($1::text[]) AS key",
        KEYS,
    )
    await fix_chunk_size(sql, 3)
    settings = CommandSettings(database_url=SecretStr(url))
    engine = create_engine(settings, application_name="test", pool_size=3, statement_timeout_seconds=30)
    run = await backfilled(engine)
    assert (run.planned, run.processed, run.enqueued) == (len(KEYS), len(KEYS), len(KEYS))
    assert await enqueued(sql) == dict.fromkeys(KEYS, 1)
    await drain(engine)
    assert await drift(sql) == []
    assert (await backfilled(engine)).enqueued == 0
    await engine.dispose()
    await sql.close()
