"""A database before phase 1 under `deploy/roles.sql`; its owner's session is older than what a world does."""

import asyncpg
import pytest

from tests.api.unhurried import take_time
from tests.legacy_rows import seed
from tests.phase1.script import BEFORE_PHASE_1
from tests.security.conftest import urls as urls  # noqa: PLC0414 - a fixture of ours, too


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    take_time(monkeypatch.setattr)


@pytest.fixture
async def sql(sql: asyncpg.Connection) -> asyncpg.Connection:
    await seed(sql)
    await sql.execute(BEFORE_PHASE_1)
    return sql
