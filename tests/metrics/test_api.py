"""What the API counts, and what it keeps from becoming a series."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from api.context import CollectionSync
from api.main import create_app
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, SEEDED, started
from tests.api.recording import seed
from tests.api.test_mounted import host_of
from tests.api.unhurried import take_time
from tests.metrics.run import Exposition
from tests.processes import HANG_SECONDS

REQUESTS = "collection_sync_http_requests_total"


@pytest.fixture
def app(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    take_time(monkeypatch.setattr)
    return create_app(settings)


@pytest.fixture
async def client(sql: asyncpg.Connection, app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    await seed(sql)
    async with started(app) as client:
        yield client


IN_USE = "collection_sync_database_connections_in_use"


async def shown(client: httpx.AsyncClient) -> Exposition:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    return Exposition.of(answer.text)


async def shown_in_use(client: httpx.AsyncClient, connections: int) -> Exposition:
    """Wait until so many are shown to be in use: a ring borrows one now and then, to ask whose it is."""
    async with asyncio.timeout(HANG_SECONDS):
        while (exposed := await shown(client)).value(IN_USE) != connections:
            await asyncio.sleep(0.02)
    return exposed


async def test_whatever_a_client_makes_up_adds_no_series(client: httpx.AsyncClient) -> None:
    await client.get("/made/up")
    await client.request("MADEUP", SEEDED)
    before = (await shown(client)).series()
    count = len((await shown(client)).text.splitlines())
    for number in range(50):
        await client.get(f"/made/up/{number}", params={"q": number})
        await client.request(f"MADE{number}", SEEDED)
        await client.request(f"MADE{number}", f"/{number}")
        await client.get(f"/projects/{number}/collections", headers=OWNER)
    after = await shown(client)
    assert after.series() == before
    known = {
        (sample.labels["method"], sample.labels["route"])
        for sample in after.families["collection_sync_http_requests"].samples
    }
    assert known == {
        ("GET", "other"),
        ("other", "other"),
        ("other", "/projects/{project_id}/collections/{collection_id}"),
        ("GET", "/projects/{project_id}/collections"),
        ("GET", "/metrics"),
    }
    assert len(after.text.splitlines()) < count + 60


async def test_a_request_that_ends_in_an_exception_counts_as_5xx(app: FastAPI, settings: Settings) -> None:
    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError

    async with started(app) as client:
        assert (await client.get("/broken")).status_code == 500
        exposed = await shown(client)
    assert exposed.value(REQUESTS, method="GET", route="/broken", status="5xx") == 1
    assert exposed.value("collection_sync_http_requests_in_flight") == 1
    assert settings.read_only_mode is False


async def test_refusals_and_connections_at_work_are_shown(
    client: httpx.AsyncClient, app: FastAPI, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.gate.admission.PLACE_WAIT_SECONDS", 0.2)
    async with sql.transaction():
        await sql.execute("SELECT 1 FROM collections FOR UPDATE")
        writes = [
            asyncio.create_task(client.put(SEEDED, headers=OWNER, json={"research_context": "x"}))
            for _ in range(9)
        ]
        sync: CollectionSync = app.state.collection_sync
        async with asyncio.timeout(HANG_SECONDS):
            while sync.bulkheads.writes.refused_in_all < 2:
                await asyncio.sleep(0.02)
        exposed = await shown_in_use(client, 7)
        assert exposed.value("collection_sync_requests_refused_total", lane="writes") == 2
        assert exposed.value("collection_sync_requests_refused_total", lane="reads") == 0
        assert exposed.value("collection_sync_http_requests_in_flight") == 8
    statuses = sorted([(await write).status_code for write in writes])
    assert statuses == [200] * 7 + [503] * 2
    exposed = await shown_in_use(client, 0)
    assert exposed.value("collection_sync_events_appended_total", event_type="collection.updated") == 7


async def test_a_silent_doorbell_and_read_only_mode_are_shown(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    nobody = settings.model_copy(update={"redis_url": type(settings.redis_url)("redis://127.0.0.1:1")})
    async with started(create_app(nobody)) as client:
        assert (await shown(client)).value("collection_sync_doorbell_up") == 1
        await client.post(ALL, headers=OWNER, json={"collection_name": "x"})
        async with asyncio.timeout(HANG_SECONDS):
            while (await shown(client)).value("collection_sync_doorbell_up") != 0:
                await asyncio.sleep(0.02)
        assert (await shown(client)).value("collection_sync_read_only") == 0
    async with started(create_app(settings.model_copy(update={"read_only_mode": True}))) as client:
        assert (await shown(client)).value("collection_sync_read_only") == 1


async def test_a_host_that_mounts_the_router_gets_no_metrics_of_ours(settings: Settings) -> None:
    async with started(host_of(settings)) as client:
        assert (await client.get("/metrics")).status_code in {404, 418}


async def test_the_document_does_not_show_them(app: FastAPI) -> None:
    assert "/metrics" not in app.openapi()["paths"]
