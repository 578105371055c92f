"""The example of a monolith with synchronous SQLAlchemy and psycopg, of which not a line is changed."""

import asyncpg
import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session, sessionmaker

from tests.capture.conftest import Capture
from tests.docs.test_example_monolith import monolith, use
from tests.docs.test_example_monolith import sessions as sessions  # noqa: PLC0414 - a fixture of ours, too
from tests.draining import drain
from tests.drift import drift
from tests.legacy_rows import set_collection

CAPTURED = "SELECT count(*) FROM captured_writes"
PAST_THE_OUTBOX = 4  # link, unlink, description and deletion


@pytest.fixture(autouse=True)
async def _there(engine: AsyncEngine, _seeded: None) -> None:
    for name in ("c1", "c2"):
        await set_collection(engine, name, "old")
    await drain(engine)


@pytest.mark.parametrize("mode", ["append", "count"])
async def test_each_of_its_writes_is_captured(
    mode: str,
    sql: asyncpg.Connection,
    engine: AsyncEngine,
    capture: Capture,
    sessions: sessionmaker[Session],
) -> None:
    await capture(mode)
    await use(monolith.plain_monolith(sessions))
    assert await sql.fetchval(CAPTURED) == PAST_THE_OUTBOX
    await drain(engine)
    assert await drift(sql) == ([] if mode == "append" else ["c1", "c2"])


async def test_a_refused_write_is_an_integrity_error_at_its_commit(
    sql: asyncpg.Connection, capture: Capture, sessions: sessionmaker[Session]
) -> None:
    await capture("refuse")
    with pytest.raises(IntegrityError, match="past the outbox"), sessions.begin() as session:
        session.get_one(monolith.Collection, "c1").description = "new"
    assert await sql.fetchval("SELECT description FROM collections WHERE collection_id = 'c1'") == "old"


async def test_one_that_appends_by_itself_is_refused_nothing(
    sql: asyncpg.Connection, engine: AsyncEngine, capture: Capture, sessions: sessionmaker[Session]
) -> None:
    await capture("refuse")
    monolith.append_for_each_change(sessions)
    await use(monolith.plain_monolith(sessions))
    assert await sql.fetchval(CAPTURED) == 0
    await drain(engine)
    assert await drift(sql) == []
