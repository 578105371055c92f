"""More work than there is room for: it is refused soon, it harms nobody else, and it passes by itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from api import context
from api.admin.verification import OrderedAudit, request_audit
from api.context import CollectionSync
from api.gate import admission
from api.gate.admission import ADMIN_PLACES, PLACES, POOL_SIZE, SEATS, Bulkhead
from api.gate.errors import OverloadedError
from api.main import create_app
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, SEEDED, create, until_full
from tests.api.test_admin import auditor
from tests.api.test_faults import UNAVAILABLE
from tests.api.test_writes import WAITING, until
from tests.processes import HANG_SECONDS

OVERLOADED = {"detail": "Too many requests at the moment. Try again."}
ADMIN = {"X-Admin-Token": "secret"}
BODY = {"collection_name": "x"}
TURN_SECONDS = 0.05
TURNS = 60  # three seconds of a loop that never rests; a place and a connection take less than half of it


@pytest.fixture
def app(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setattr(context, "PLACE_WAIT_SECONDS", 0.2)  # for a connection, after that for a place
    return create_app(settings.model_copy(update={"admin_token": SecretStr("secret")}))


@pytest.fixture(autouse=True)
async def _ends_its_requests(client: httpx.AsyncClient) -> AsyncIterator[None]:
    """End what a test that failed, as it does on a twin, has begun: the app closes no connection in use.

    A statement that is cancelled so opens another connection, to tell the server: that is left its time.
    """
    del client  # it ends after this
    before = asyncio.all_tasks()
    yield
    for task in (left := asyncio.all_tasks() - before - {asyncio.current_task()}):
        task.cancel()
    while left:
        _, pending = await asyncio.wait(left, timeout=HANG_SECONDS)
        assert not pending
        left = asyncio.all_tasks() - before - {asyncio.current_task()}


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


async def soon(what: Callable[[], bool]) -> None:
    """Wait for it in turns of the loop, which a machine that stands still does not take."""
    for _ in range(TURNS):
        if what():
            return
        await asyncio.sleep(TURN_SECONDS)
    pytest.fail(f"not within {TURNS} turns")


async def test_while_every_connection_is_stuck_the_rest_is_refused_soon_and_then_all_is_well_again(
    client: httpx.AsyncClient,
    seeded: asyncpg.Connection,
    app: FastAPI,
    database_url: str,
) -> None:
    async with locked(database_url, "projects"):
        stuck = [asyncio.create_task(client.get(ALL, headers=OWNER)) for _ in range(2 * POOL_SIZE)]
        stuck += [asyncio.create_task(client.put(SEEDED, headers=OWNER, json={})) for _ in range(POOL_SIZE)]
        await until(seeded, WAITING, POOL_SIZE)
        alive = asyncio.create_task(client.get("/healthz"))
        refused = [
            asyncio.create_task(answer)
            for answer in (
                client.get(ALL, headers=OWNER),
                client.get(f"{SEEDED}/sync", headers=OWNER),
                client.post(ALL, headers=OWNER, json=BODY),
                client.put(SEEDED, headers=OWNER, json={}),
                client.delete(SEEDED, headers=OWNER),
                client.get("/admin/backfill", headers=ADMIN),
            )
        ]
        assert (await alive).status_code == 200
        await soon(lambda: all(task.done() for task in refused))
        for task in refused:
            assert_refused(await task)
        assert (await client.get("/readyz")).status_code == 503
        await soon(lambda: sum(not task.done() for task in stuck) == POOL_SIZE)
    statuses = [answer.status_code for answer in await asyncio.gather(*stuck)]
    assert sorted(statuses) == [200] * POOL_SIZE + [503] * (len(stuck) - POOL_SIZE)
    assert (await client.get("/readyz")).status_code == 200
    await create(client)
    assert (await client.get(ALL, headers=OWNER)).status_code == 200
    assert app.state.collection_sync.engine.pool.checkedout() == 0


async def test_writers_behind_a_locked_row_leave_readers_and_administrators_their_connections(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "PLACE_WAIT_SECONDS", 0.2)
    async with locked_rows(database_url):
        puts = [asyncio.create_task(client.put(SEEDED, headers=OWNER, json={})) for _ in range(20)]
        await until(seeded, WAITING, PLACES)
        for path, headers in ((ALL, OWNER), (f"{SEEDED}/sync", OWNER), ("/readyz", {})):
            assert (await client.get(path, headers=headers)).status_code == 200
        assert (await client.get("/admin/backfill", headers=ADMIN)).status_code == 404  # none has run
        await asyncio.wait(puts, return_when=asyncio.FIRST_COMPLETED)
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
    monkeypatch.setattr(admission, "PLACE_WAIT_SECONDS", HANG_SECONDS)
    async with locked_rows(database_url):
        with capture_logs() as lines:
            puts = [
                asyncio.create_task(client.put(SEEDED, headers=OWNER, json={})) for _ in range(PLACES + SEATS)
            ]
            await until(seeded, WAITING, PLACES)
            for _ in range(3):
                answer = await client.put(SEEDED, headers=OWNER, json={})
                assert (answer.status_code, answer.json()) == (503, OVERLOADED)
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
    client: httpx.AsyncClient, app: FastAPI, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = "/admin/verify-phase1-migration"
    asked: list[int] = []

    async def ask(sync: CollectionSync, actor: str) -> OrderedAudit:
        ordered = await request_audit(sync, actor)
        asked.append(ordered.audit_id)
        return ordered

    monkeypatch.setattr("api.admin.verification.request_audit", ask)
    waiting = [
        asyncio.create_task(client.get(verify, headers=ADMIN, params={"wait_seconds": 60}))
        for _ in range(ADMIN_PLACES)
    ]
    await until_full(app.state.collection_sync.bulkheads.admin)
    monkeypatch.setattr(admission, "PLACE_WAIT_SECONDS", 0.05)
    refused = await client.get("/admin/backfill", headers=ADMIN)
    assert (refused.status_code, refused.json()) == (503, OVERLOADED)
    assert (await client.get(ALL, headers=OWNER)).status_code == 200
    await create(client)
    async with asyncio.timeout(HANG_SECONDS):
        while len(asked) < ADMIN_PLACES:
            await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)
    async with auditor(engine):
        assert {answer.json()["audit_id"] for answer in await asyncio.gather(*waiting)} == {1}


async def test_a_request_that_fails_or_goes_away_gives_its_place_and_its_seat_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "PLACE_WAIT_SECONDS", 0.05)
    bulkhead = Bulkhead("test", places=1, seats=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with bulkhead.place():
                raise ZeroDivisionError
    async with bulkhead.place():
        for _ in range(3):
            waiter = asyncio.create_task(bulkhead.place().__aenter__())
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError):
                await bulkhead.place().__aenter__()
            waiter.cancel()
            await asyncio.wait([waiter])
        for _ in range(3):
            with pytest.raises(OverloadedError):
                await bulkhead.place().__aenter__()
    async with asyncio.timeout(HANG_SECONDS), bulkhead.place():
        pass
