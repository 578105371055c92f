"""A batch that takes too long is made smaller; one event that does is passed over, and dead in the end."""

from collections.abc import AsyncIterator
from types import SimpleNamespace

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared.postgres.database import create_engine
from shared.settings import Settings
from tests.drift import drift
from tests.legacy_rows import set_collection
from worker.drainer import Drainer
from worker.relay.batch import Batch
from worker.relay.batch_size import REST_SECONDS, TRIES, BatchSize
from worker.relay.claim import ClaimedEvent
from worker.relay.outcomes import Outcome, Settlement

SLOW = """
    CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_sleep(CASE WHEN NEW.collection_id = 'slow' THEN 60 ELSE {seconds} END);
        RETURN NEW;
    END $$;
    CREATE TRIGGER linger BEFORE INSERT ON project_collections FOR EACH ROW EXECUTE FUNCTION linger();
"""


@pytest.fixture
async def impatient(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """As the worker's, but for a statement's time."""
    session = {"statement_timeout": "300ms"}
    engine = create_engine(
        settings, application_name="test", pool_size=5, statement_timeout_seconds=30, session=session
    )
    yield engine
    await engine.dispose()


async def pending(sql: asyncpg.Connection) -> int:
    count: int = await sql.fetchval("SELECT count(*) FROM outbox_events")
    return count


async def test_every_pass_settles_some_of_a_backlog_that_takes_too_long_as_one_batch(
    impatient: AsyncEngine, engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole batch would take three times what a statement may."""
    await sql.execute(SLOW.format(seconds=0.003))
    for number in range(300):
        await set_collection(engine, f"c{number}")
    monkeypatch.setattr("worker.relay.batch_size.EASY_SECONDS", 0)
    monkeypatch.setattr("worker.drainer.LAST_RETRY_SECONDS", 0)
    drainer = Drainer(impatient)
    with capture_logs() as lines:
        for _ in range(15):
            await drainer.drain("sweep")
    assert await pending(sql) == 0
    assert {line["sqlstate"] for line in lines if line["event"] == "batch_failed"} == {"57014"}
    assert await drift(sql) == []
    assert await sql.fetchval("SELECT count(*) FROM outbox_dead_letters") == 0


async def test_an_event_that_takes_too_long_alone_stops_nobody_and_is_dead_in_the_end(
    impatient: AsyncEngine, engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.relay.batch_size.TOO_LONG_SECONDS", 0)
    now = 0.0
    monkeypatch.setattr("worker.relay.batch_size.time", SimpleNamespace(monotonic=lambda: now))
    await sql.execute(SLOW.format(seconds=0))
    for name in ("before", "slow", "after"):
        await set_collection(engine, name)
    drainer = Drainer(impatient)
    while await pending(sql) > 1:
        await drainer.drain("sweep")
    assert await drift(sql) == ["slow"]
    while await pending(sql):
        now += TRIES * REST_SECONDS
        await drainer.drain("sweep")
    (letter,) = await sql.fetch("SELECT aggregate_id, sqlstate, error FROM outbox_dead_letters")
    assert tuple(letter) == (
        "slow",
        "57014",
        f"canceled {TRIES} times for its time, with no other event in its batch",
    )


def batch(seconds: float) -> Batch:
    event = ClaimedEvent(1, "c", "p1", "collection.updated", "api", 0.0, True, True, 0.0, 0, 0)  # noqa: FBT003
    return Batch([event], {1: Settlement(Outcome.APPLIED)}, duration_seconds=seconds)


def test_a_batch_that_took_long_is_not_followed_by_a_larger_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.relay.batch_size.EASY_SECONDS", 5.0)
    size = BatchSize(1_000)
    size._size = 100  # noqa: SLF001 - as after three that were cancelled
    size.note(batch(25.0))
    assert size.size == 100
    for expected in (200, 400, 800, 1_000):
        size.note(batch(0.1))
        assert size.size == expected
        size.note(Batch())
        assert size.size == expected
