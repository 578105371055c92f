"""A database before phase 1 under `deploy/roles.sql`, whose owner is not held up by what the world does to it."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.api.unhurried import take_time
from tests.legacy_rows import seed
from tests.phase1.script import BEFORE_PHASE_1
from tests.security.conftest import urls as urls


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    take_time(monkeypatch.setattr)


@pytest.fixture
async def sql(sql: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """A connection from before the world's settings, so that they do not hold for it."""
    await seed(sql)
    await sql.execute(BEFORE_PHASE_1)
    yield sql
