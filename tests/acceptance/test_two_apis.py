"""What the legacy service gets wrong as soon as two of its processes run."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import asyncpg
import httpx
import pytest
import pytest_asyncio

from deploy.local.valkey import Valkey
from tests.databases import MIGRATED, Databases
from tests.drift import drained, drift
from tests.legacy_rows import seed
from tests.processes import HANG_SECONDS, environment, running_api, running_worker
from tests.race import freezing

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.wide]

AT_ONCE = 6  # an API has a place for each, so that none is refused on a machine that is busy
FEWEST = 90  # duels; and as many more as it takes until each of the two has come first

INSERT_COLLECTIONS = """
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    SELECT $1 || '-' || $3::integer || '-' || number, $1, 'name', 'at first', 'owner', true
    FROM generate_series(1, $2::integer) AS number
    RETURNING collection_id
"""
LINK_THEM = """
    INSERT INTO project_collections (project_id, collection_id, research_context, created_at, updated_at)
    SELECT project_id, collection_id, description, created_at, updated_at
    FROM collections
    WHERE collection_id = ANY($1)
"""

Statuses = list[tuple[int, int]]
Request = Callable[[httpx.AsyncClient, str], Awaitable[httpx.Response]]


@dataclass(frozen=True)
class Service:
    """A client for each of two API processes, which share a database and its worker."""

    clients: tuple[httpx.AsyncClient, httpx.AsyncClient]
    sql: asyncpg.Connection
    numbers: Iterator[int] = field(default_factory=itertools.count)

    async def insert_collections(self, project_id: str, count: int, *, linked: bool) -> list[str]:
        first = next(self.numbers)
        rows = await self.sql.fetch(INSERT_COLLECTIONS, project_id, count, first)
        collection_ids = [row["collection_id"] for row in rows]
        if linked:
            await self.sql.execute(LINK_THEM, collection_ids)
        return collection_ids

    async def duel(self, one: Request, other: Request, collection_ids: Sequence[str]) -> Statuses:
        """Send both requests for each collection at the same moment to the two processes.

        Each process gets the one request as often as the other.
        """
        pairs = [
            asyncio.gather(
                one(self.clients[number % 2], collection_id),
                other(self.clients[1 - number % 2], collection_id),
            )
            for number, collection_id in enumerate(collection_ids)
        ]
        answers = await asyncio.gather(*pairs)
        return [(first.status_code, second.status_code) for first, second in answers]

    async def settle(self, project_id: str, statuses: Statuses) -> list[str]:
        """Compare everything exactly, then return what the project's target rows say."""
        await drained(self.sql)
        assert await drift(self.sql) == []
        logged = "SELECT count(*) FROM activity_logs WHERE project_id = $1"
        assert await self.sql.fetchval(logged, project_id) == sum(pair.count(200) for pair in statuses)
        target = "SELECT research_context FROM project_collections WHERE project_id = $1"
        return [row["research_context"] for row in await self.sql.fetch(target, project_id)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(databases: Databases, valkey: Valkey) -> AsyncIterator[Service]:
    with databases.clone(MIGRATED) as database_url:
        env = environment(database_url, valkey.url)
        async with contextlib.AsyncExitStack() as stack:
            sql, stormy = [await asyncpg.connect(database_url) for _ in range(2)]
            stack.push_async_callback(sql.close)
            stack.push_async_callback(stormy.close)
            await seed(sql)
            await freezing.install(sql)
            await stack.enter_async_context(running_worker(env))
            urls = [(await stack.enter_async_context(running_api(env)))[1] for _ in range(2)]
            first, second = [
                await stack.enter_async_context(
                    httpx.AsyncClient(base_url=url, headers={"User-ID": "owner"}, timeout=HANG_SECONDS)
                )
                for url in urls
            ]
            # Freezes one step after another of writing and applying, so that the races are real.
            weather = asyncio.create_task(freezing.weather(stormy, list(freezing.NUMBERS), seed=1))
            yield Service((first, second), sql)
            weather.cancel()
            await asyncio.wait([weather])


def path_of(collection_id: str) -> str:
    return f"/projects/{collection_id.partition('-')[0]}/collections/{collection_id}"


async def put(description: str, client: httpx.AsyncClient, collection_id: str) -> httpx.Response:
    return await client.put(path_of(collection_id), json={"description": description})


async def delete(client: httpx.AsyncClient, collection_id: str) -> httpx.Response:
    return await client.delete(path_of(collection_id))


async def test_put_against_delete_leaves_neither_an_orphan_nor_an_error(service: Service) -> None:
    statuses: Statuses = []
    # Both orders must happen, or there is no race.
    while len(statuses) < FEWEST or set(statuses) < {(200, 200), (404, 200)}:
        collection_ids = await service.insert_collections("p1", AT_ONCE, linked=True)
        statuses += await service.duel(partial(put, "changed"), delete, collection_ids)

    assert set(statuses) == {(200, 200), (404, 200)}
    assert await service.settle("p1", statuses) == []


async def test_two_first_puts_of_an_unlinked_collection_make_its_one_row(service: Service) -> None:
    statuses: Statuses = []
    winners: list[str] = []
    while len(statuses) < FEWEST or set(winners) < {"one", "other"}:
        for _ in range(FEWEST // AT_ONCE // 3):
            collection_ids = await service.insert_collections("p2", AT_ONCE, linked=False)
            statuses += await service.duel(partial(put, "one"), partial(put, "other"), collection_ids)
        winners = await service.settle("p2", statuses)

    assert set(statuses) == {(200, 200)}
    assert len(winners) == len(statuses)
    assert set(winners) == {"one", "other"}


async def test_of_two_puts_the_one_that_committed_last_wins_in_the_target(service: Service) -> None:
    collection_ids = await service.insert_collections("p3", AT_ONCE, linked=True)
    statuses: Statuses = []
    winners: set[str] = set()
    while len(statuses) < FEWEST or winners < {"one", "other"}:
        for _ in range(FEWEST // AT_ONCE // 3):
            statuses += await service.duel(partial(put, "one"), partial(put, "other"), collection_ids)
        winners |= set(await service.settle("p3", statuses))

    assert set(statuses) == {(200, 200)}
    assert winners == {"one", "other"}
