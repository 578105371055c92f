"""More work than there is room for: it is refused soon, it harms nobody else, and it passes by itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from structlog.testing import capture_logs

from api import admission
from api.admission import ADMIN_PLACES, PATIENCE_SECONDS, PLACES, POOL_SIZE, SEATS, Lane
from api.errors import OverloadedError
from api.main import create_app
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, SEEDED, create
from tests.api.test_faults import UNAVAILABLE
from tests.api.test_writes import WAITING, until

OVERLOADED = {"detail": "Too many requests at the moment. Try again."}
ADMIN = {"X-Admin-Token": "secret"}
BODY = {"collection_name": "x"}
PROMPTLY = 4 * PATIENCE_SECONDS  # for the place, and then for the connection, on a busy machine


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings.model_copy(update={"admin_token": SecretStr("secret")}))


@asynccontextmanager
async def held(database_url: str, statement: str) -> AsyncIterator[None]:
    """Hold the locks that the statement takes for as long as the body runs."""
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            await other.execute(statement)
            yield
    finally:
        await other.close()


def locked(database_url: str, table: str) -> AbstractAsyncContextManager[None]:
    """Make every statement that reads the table wait."""
    return held(database_url, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")


def locked_rows(database_url: str) -> AbstractAsyncContextManager[None]:
    """Make every statement that changes a collection wait."""
    return held(database_url, "SELECT FROM collections FOR UPDATE")


def assert_refused(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json() in (OVERLOADED, UNAVAILABLE)


async def timed(answer: Awaitable[httpx.Response]) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    return await answer, time.monotonic() - began


async def test_while_every_connection_is_stuck_the_rest_is_refused_soon_and_then_all_is_well_again(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, app: FastAPI, database_url: str
) -> None:
    async with locked(database_url, "projects"):
        stuck = [asyncio.create_task(client.get(ALL, headers=OWNER)) for _ in range(2 * POOL_SIZE)]
        stuck += [asyncio.create_task(client.put(SEEDED, headers=OWNER, json={})) for _ in range(POOL_SIZE)]
        await until(seeded, WAITING, POOL_SIZE)
        refused = await asyncio.gather(
            timed(client.get(ALL, headers=OWNER)),
            timed(client.get(f"{SEEDED}/sync", headers=OWNER)),
            timed(client.post(ALL, headers=OWNER, json=BODY)),
            timed(client.put(SEEDED, headers=OWNER, json={})),
            timed(client.delete(SEEDED, headers=OWNER)),
            timed(client.get("/admin/backfill", headers=ADMIN)),
        )
        for answer, seconds in refused:
            assert_refused(answer)
            assert seconds < PROMPTLY
        alive, seconds = await timed(client.get("/healthz"))
        assert (alive.status_code, seconds < PATIENCE_SECONDS) == (200, True)
        assert (await client.get("/readyz")).status_code == 503
        assert sum(not task.done() for task in stuck) == POOL_SIZE
    statuses = [answer.status_code for answer in await asyncio.gather(*stuck)]
    assert sorted(statuses) == [200] * POOL_SIZE + [503] * (len(stuck) - POOL_SIZE)
    assert (await client.get("/readyz")).status_code == 200
    await create(client)
    assert (await client.get(ALL, headers=OWNER)).status_code == 200
    assert app.state.collection_sync.engine.pool.checkedout() == 0


async def test_writers_behind_a_locked_row_leave_readers_and_administrators_their_connections(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, database_url: str
) -> None:
    async with locked_rows(database_url):
        puts = [asyncio.create_task(client.put(SEEDED, headers=OWNER, json={})) for _ in range(20)]
        await until(seeded, WAITING, PLACES)
        for path, headers in ((ALL, OWNER), (f"{SEEDED}/sync", OWNER), ("/readyz", {})):
            assert (await client.get(path, headers=headers)).status_code == 200
        assert (await client.get("/admin/backfill", headers=ADMIN)).status_code == 404  # none has run
        await asyncio.wait(puts, timeout=PROMPTLY, return_when=asyncio.FIRST_COMPLETED)
    answers = await asyncio.gather(*puts)
    assert {answer.status_code for answer in answers} == {200, 503}
    assert sum(answer.status_code == 200 for answer in answers) >= PLACES
    for answer in answers:
        if answer.status_code == 503:
            assert answer.json() == OVERLOADED


async def test_readers_of_something_slow_leave_writers_their_connections(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, database_url: str
) -> None:
    async with locked(database_url, "article_collections"):
        lists = [asyncio.create_task(client.get(ALL, headers=OWNER)) for _ in range(20)]
        await until(seeded, WAITING, PLACES)
        path = await create(client)
        assert (await client.delete(path, headers=OWNER)).status_code == 200
    assert {answer.status_code for answer in await asyncio.gather(*lists)} <= {200, 503}


async def test_who_finds_neither_place_nor_seat_is_refused_at_once(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "PATIENCE_SECONDS", 60)
    async with locked_rows(database_url):
        with capture_logs() as lines:
            puts = [
                asyncio.create_task(client.put(SEEDED, headers=OWNER, json={})) for _ in range(PLACES + SEATS)
            ]
            await until(seeded, WAITING, PLACES)
            for _ in range(3):
                answer, seconds = await timed(client.put(SEEDED, headers=OWNER, json={}))
                assert (answer.status_code, answer.json()) == (503, OVERLOADED)
                assert seconds < 10
            assert not any(put.done() for put in puts)
            assert [line for line in lines if line["event"] != "collection_written"] == [
                {"event": "overloaded", "log_level": "warning", "lane": "writes"}
            ]
    with capture_logs() as lines:
        assert {answer.status_code for answer in await asyncio.gather(*puts)} == {200}
    assert [line for line in lines if line["event"] != "collection_written"] == [
        {"event": "overload_over", "log_level": "info", "lane": "writes", "refused": 3}
    ]


async def test_verifications_that_wait_are_bounded_and_take_nothing_from_users(
    client: httpx.AsyncClient,
) -> None:
    verify = "/admin/verify-phase1-migration"
    waiting = [
        asyncio.create_task(client.get(verify, headers=ADMIN, params={"wait_seconds": 3}))
        for _ in range(ADMIN_PLACES)
    ]
    async with asyncio.timeout(3):
        while (refused := await client.get("/admin/backfill", headers=ADMIN)).status_code != 503:
            await asyncio.sleep(0.01)
        assert refused.json() == OVERLOADED
        assert (await client.get(ALL, headers=OWNER)).status_code == 200
        await create(client)
    assert {answer.json()["detail"][:30] for answer in await asyncio.gather(*waiting)} == {
        "No worker carries out audit 1:"
    }


async def test_a_request_that_fails_or_goes_away_gives_its_place_and_its_seat_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "PATIENCE_SECONDS", 0.05)
    lane = Lane("test", places=1, seats=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with lane.place():
                raise ZeroDivisionError
    async with lane.place():
        for _ in range(3):
            waiter = asyncio.create_task(lane.place().__aenter__())
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError):
                await lane.place().__aenter__()
            waiter.cancel()
            await asyncio.wait([waiter])
        for _ in range(3):
            with pytest.raises(OverloadedError):
                await lane.place().__aenter__()
    async with asyncio.timeout(1), lane.place():
        pass
