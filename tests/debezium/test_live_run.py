"""A real Debezium with the shipped configuration beside a live run: every event, in the order of commits."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from deploy.local.postgres import Postgres
from shared.events import EventType, Source
from shared.outbox import append_states
from shared.postgres.database import create_engine
from shared.settings import Settings
from tests.debezium.conftest import committed, reading
from tests.drift import drained, drift
from tests.processes import environment, running_api, running_worker

pytestmark = [pytest.mark.debezium, pytest.mark.timeout(900)]

PENDING = 20  # before Debezium comes: its snapshot
BULK = 5_000  # in one transaction, over two of Debezium's batches
HOT = 5
WRITERS = 8
WRITES = 40
PATH = "/projects/p1/collections"
STATE = ("project_id", "research_context", "created_at", "updated_at")
COLLECTIONS = """
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
    SELECT $1 || number, 'p1', 'name', 'owner', true FROM generate_series(0, $2::integer - 1) AS number
    RETURNING collection_id
"""


async def collections(sql: asyncpg.Connection, prefix: str, count: int) -> list[str]:
    return [row["collection_id"] for row in await sql.fetch(COLLECTIONS, prefix, count)]


async def append(engine: AsyncEngine, ids: list[str], source: Source, hold_seconds: float = 0) -> None:
    """Append the state of each in one transaction, which stays open for a while with its ids drawn."""
    async with engine.begin() as connection:
        await append_states(connection, ids, EventType.UPDATED, source)
        await asyncio.sleep(hold_seconds)


async def stage(sql: asyncpg.Connection, engine: AsyncEngine) -> tuple[str, list[str], list[str]]:
    """Leave events pending; return where the WAL was before, and collections to write slowly or in bulk."""
    first = await sql.fetchval("SELECT pg_current_wal_lsn()::text")
    await append(engine, await collections(sql, "pending", PENDING), Source.BACKFILL)
    await collections(sql, "hot", HOT)
    return first, await collections(sql, "slow", 60), await collections(sql, "bulk", BULK)


async def taken_back(engine: AsyncEngine, ids: list[str]) -> None:
    async with engine.connect() as connection:
        await append_states(connection, ids, EventType.UPDATED, Source.REPAIR)
        await connection.rollback()


async def write(client: httpx.AsyncClient, number: int) -> None:
    """Change few collections that everybody changes; make one now and then, and delete it."""
    for turn in range(WRITES):
        body = {"description": f"{number} {turn}"}
        path = f"{PATH}/hot{(number + turn) % HOT}"
        (await client.put(path, json=body)).raise_for_status()
        if turn % 10 == 0:
            made = (await client.post(PATH, json={"collection_name": "made"})).raise_for_status().json()
            (await client.delete(f"{PATH}/{made['collection_id']}")).raise_for_status()


async def load(url: str, engine: AsyncEngine, slow: list[str]) -> None:
    """Write at once over HTTP, and beside that in transactions that draw ids early and commit late."""
    headers = {"User-ID": "owner"}
    async with (
        httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client,
        asyncio.TaskGroup() as group,
    ):
        for number in range(WRITERS):
            group.create_task(write(client, number))
        for few in zip(*[iter(slow)] * 3, strict=True):
            await append(engine, list(few), Source.REPAIR, hold_seconds=0.1)
            await taken_back(engine, list(few))


@contextlib.asynccontextmanager
async def product(server: Postgres, redis_url: str) -> AsyncIterator[str]:
    """Run an API and a worker, which deletes what it applied; yield the API's address."""
    env = environment(server.url, redis_url)
    async with running_worker(env), running_api(env) as (_, url):
        yield url


@pytest.fixture
async def engine_of_ours(prepared: Postgres, redis_url: str) -> AsyncIterator[AsyncEngine]:
    settings = Settings(database_url=SecretStr(prepared.url), redis_url=SecretStr(redis_url))
    engine = create_engine(settings, application_name="test", pool_size=5, statement_timeout_seconds=60)
    yield engine
    await engine.dispose()


def guarded(messages: list[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Apply the messages as a consumer does: what is not newer than what it has is passed over."""
    versions: dict[str, int] = {}
    rows: dict[str, tuple[Any, ...]] = {}
    for message in messages:
        key, version, state = message["key"], int(message["headers"]["id"]), json.loads(message["value"])
        if version <= versions.get(key, 0):
            continue
        versions[key] = version
        rows.pop(key, None)
        if message["headers"]["event_type"] != "collection.deleted":
            rows[key] = tuple(state[name] for name in STATE)
    return rows


async def assert_a_consumer_has_the_target(sql: asyncpg.Connection, messages: list[dict[str, Any]]) -> None:
    target = await sql.fetch("""
        SELECT collection_id, project_id, research_context,
            to_jsonb(created_at) #>> '{}' AS created_at, to_jsonb(updated_at) #>> '{}' AS updated_at
        FROM project_collections
    """)
    assert guarded(messages) == {row["collection_id"]: tuple(row)[1:] for row in target}
    assert len(target) > BULK


def assert_order(messages: list[dict[str, Any]], expected: list[asyncpg.Record]) -> None:
    """Find exactly these events, once each, in exactly this order; then also for each collection."""
    ids = [int(message["headers"]["id"]) for message in messages]
    assert ids == [event["id"] for event in expected]
    for message, event in zip(messages, expected, strict=True):
        told = message["key"], message["headers"]["event_type"], message["headers"]["source"]
        assert told == (event["aggregate_id"], event["event_type"], event["source"])
        assert json.loads(message["value"]) == json.loads(event["payload"])
        assert message["topic"] == "outbox.event.collection"


def assert_hard(expected: list[asyncpg.Record]) -> None:
    """See that the order was not that of ids, and for each collection it was."""
    ids = [event["id"] for event in expected]
    assert any(later < earlier for earlier, later in itertools.pairwise(ids))
    for key in {event["aggregate_id"] for event in expected}:
        of_one = [event["id"] for event in expected if event["aggregate_id"] == key]
        assert of_one == sorted(of_one)


async def test_a_live_run_is_read_once_and_in_the_order_of_commits(  # noqa: PLR0917
    prepared: Postgres, engine_of_ours: AsyncEngine, session: asyncpg.Connection, redis_url: str,
    debezium_python: Path, tmp_path: Path,
) -> None:  # fmt: skip
    first, slow, bulk = await stage(session, engine_of_ours)
    with reading(debezium_python, prepared, tmp_path, "whole") as reader:
        await reader.has_read(PENDING)
        async with product(prepared, redis_url) as url:
            await asyncio.gather(
                load(url, engine_of_ours, slow), append(engine_of_ours, bulk, Source.BACKFILL)
            )
            await drained(session)
            await append(engine_of_ours, [f"hot{n}" for n in range(HOT)], Source.REPAIR)
            await drained(session)
        expected = await committed(prepared, session, first)
        await reader.has_read(len(expected))
        await asyncio.sleep(3)  # for what should not come
        messages = reader.messages
    assert_hard(expected)
    assert_order(messages, expected)
    assert await drift(session) == []
    await assert_a_consumer_has_the_target(session, messages)


async def test_a_killed_engine_goes_on_from_its_offsets_with_repetitions_and_without_a_gap(  # noqa: PLR0917
    prepared: Postgres, engine_of_ours: AsyncEngine, session: asyncpg.Connection, redis_url: str,
    debezium_python: Path, tmp_path: Path,
) -> None:  # fmt: skip
    """It dies in the middle of a transaction, of which it had acknowledged a part."""
    first, slow, bulk = await stage(session, engine_of_ours)
    with reading(debezium_python, prepared, tmp_path, "first", die_after=PENDING + BULK * 3 // 5) as reader:
        await reader.has_read(PENDING)
        await append(engine_of_ours, bulk, Source.BACKFILL)
        assert await reader.ended() == -9
        before = reader.messages
    async with product(prepared, redis_url) as url:
        await load(url, engine_of_ours, slow)
        await drained(session)
        with reading(debezium_python, prepared, tmp_path, "second") as reader:
            await load(url, engine_of_ours, slow)
            await drained(session)
            expected = await committed(prepared, session, first)
            async with asyncio.timeout(90):
                while not reader.ids or reader.ids[-1] != expected[-1]["id"]:
                    assert reader.process.poll() is None, reader.errors
                    await asyncio.sleep(0.1)
            after = reader.messages
    assert_hard(expected)
    assert_order(before, expected[: len(before)])
    assert_order(after, expected[-len(after) :])
    repeated = len(before) + len(after) - len(expected)
    assert 0 <= repeated < len(before) - PENDING, f"{len(before)} + {len(after)} of {len(expected)}"
    print(f"{len(before)} before the kill, {len(after)} after it, {repeated} of them again")  # noqa: T201
    await assert_a_consumer_has_the_target(session, before + after)
