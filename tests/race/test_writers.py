"""Two writers of one collection: the order of the events' ids is the order of the commits."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from api import collections as api
from api.context import CollectionSync, collection_sync
from api.gate.errors import CollectionNotFoundError
from api.write_statement import Written
from shared.events import EventType, Source
from shared.outbox import append_event
from shared.settings import Settings
from tests.draining import drain
from tests.drift import drift
from tests.legacy_rows import set_collection
from tests.race import freezing
from tests.race.storm import CHANGE, LOCK

CHANGED = "legacy row: after its change"
EVENTS = "SELECT payload ->> 'research_context' AS state FROM outbox_events ORDER BY id"


@pytest.fixture
async def sync(settings: Settings) -> AsyncIterator[CollectionSync]:
    app = FastAPI()
    async with collection_sync(app, settings):
        yield app.state.collection_sync


def update(sync: CollectionSync, description: str) -> asyncio.Task[Written]:
    values = {"description": description}
    return asyncio.create_task(api.update_collection(sync, "owner", "p1", "c", values))


async def test_of_two_writers_the_one_that_commits_last_has_the_higher_id(
    sync: CollectionSync, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c", "at first")
    await drain(engine)
    async with engine.begin() as other:
        await other.execute(LOCK, {"id": "c"})
        last = update(sync, "committed last")
        await freezing.until_blocked(sql)
        await other.execute(CHANGE, {"id": "c", "description": "committed first", "is_active": True})
        await append_event(other, "c", EventType.UPDATED, Source.API)
    await last
    states = [row["state"] for row in await sql.fetch(EVENTS)]
    assert states == ["committed first", "committed last"]
    await drain(engine)
    assert await drift(sql) == []


async def test_an_update_that_waited_for_a_deletion_does_not_bring_the_row_back(
    sync: CollectionSync, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c", "at first")
    await drain(engine)
    await freezing.install(sql)
    async with freezing.frozen(sql, CHANGED):
        deletion = asyncio.create_task(api.delete_collection(sync, "owner", "p1", "c"))
        await freezing.arrived(sql, CHANGED)
        change = update(sync, "too late")
        await freezing.until_blocked(sql)
    await deletion
    (failure,) = await asyncio.gather(change, return_exceptions=True)
    await drain(engine)
    assert await drift(sql) == []
    assert isinstance(failure, CollectionNotFoundError)
