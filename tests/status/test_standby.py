"""On a hot standby the command says what its primary's would."""

import asyncio

import pytest
from pydantic import SecretStr

from deploy.local.postgres import Postgres
from shared.postgres.database import create_engine
from shared.settings import Settings
from shared.status.figures import lines
from tests.acceptance.test_standby import connected, until
from tests.acceptance.test_standby import primary as primary  # noqa: PLC0414 - a fixture of ours, too
from tests.acceptance.test_standby import standby as standby  # noqa: PLC0414
from tests.databases import MIGRATED
from tests.legacy_rows import seed
from tests.processes import HANG_SECONDS
from tests.status.operator import facts_of, seen
from tests.status.scenes import in_sync


@pytest.mark.wide
async def test_a_hot_standby_says_what_its_primary_does_and_that_it_may_be_behind(
    primary: Postgres, standby: Postgres
) -> None:
    settings = Settings(
        database_url=SecretStr(primary.url_of(MIGRATED)), redis_url=SecretStr("redis://127.0.0.1:1")
    )
    engine = create_engine(settings, application_name="test", pool_size=5, statement_timeout_seconds=30)
    async with connected(primary) as sql, connected(standby) as sql_of_standby:
        await seed(sql)
        await in_sync(engine, sql)
        position = await sql.fetchval("SELECT pg_current_wal_insert_lsn()::text")
        await until(sql_of_standby, f"SELECT (pg_last_wal_replay_lsn() >= '{position}')::int", 1)
    await engine.dispose()
    async with asyncio.timeout(HANG_SECONDS):
        facts = await facts_of(standby.url_of(MIGRATED))
        assert (facts.server.is_standby, facts.unknown) == (True, {})
        assert (await seen(standby.url_of(MIGRATED))).word == "in_sync"
    assert "a hot standby" in "\n".join(lines(facts))
