"""Through PgBouncer in transaction mode the command sees the same, on one snapshot as well."""

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import Settings
from shared.status.collection import read
from shared.status.look import look
from shared.status.session import engine_of, looking
from shared.status.why import why
from shared.verdict.rules import answer_from
from tests.scaling.conftest import pooled as pooled  # noqa: PLC0414 - fixtures of ours, too
from tests.scaling.conftest import pooled_settings as pooled_settings  # noqa: PLC0414
from tests.status.scenes import in_sync

IN_FORCE = text("SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')")


@pytest.mark.wide
async def test_through_a_pooler_a_look_is_one_snapshot_too(
    engine: AsyncEngine, pooled_settings: Settings, sql: asyncpg.Connection
) -> None:
    await in_sync(engine, sql)
    async with engine_of(pooled_settings) as through:
        async with looking(through) as connection:
            assert tuple((await connection.execute(IN_FORCE)).one()) == ("repeatable read", "on")
        facts = await look(through)
        assert (answer_from(facts).word, facts.unknown) == ("in_sync", {})
        assert why(await read(through, "c1")).word == "in_sync"
