import asyncpg
import pytest
from sqlalchemy import text

from tests.legacy_rows import seed
from tests.processes import HANG_SECONDS
from tests.twins.replacing import replaced
from worker.rollback.statements import PREPARE


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no rollback of this process give a slow batch up."""
    monkeypatch.setattr(
        "worker.rollback.statements.PREPARE", text(replaced(PREPARE.text, "'5s'", f"'{HANG_SECONDS}s'"))
    )


@pytest.fixture(autouse=True)
async def _seeded(sql: asyncpg.Connection) -> None:
    await seed(sql)
