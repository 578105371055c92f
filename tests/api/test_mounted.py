"""The router in somebody else's app: the same answers, whatever that app does with its own errors."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from api.admin.routes import admin
from api.context import collection_sync
from api.gate import admission
from api.gate.admission import PLACES
from api.gate.body import MAX_BODY_BYTES
from api.routes import router
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, SEEDED, STRANGER, UNKNOWN, create, started
from tests.draining import drain


class Other(BaseModel):
    """The body of a route of the host's own."""

    name: str


def host_of(settings: Settings, prefix: str = "") -> FastAPI:
    """Build an app that answers all of its own errors with a teapot."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with collection_sync(app, settings):
            yield

    async def teapot(_request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(f"teapot: {error}", status_code=418)

    host = FastAPI(lifespan=lifespan, debug=True)
    for kind in (HTTPException, RequestValidationError, Exception):
        host.add_exception_handler(kind, teapot)
    host.include_router(router, prefix=prefix)
    host.include_router(admin)

    @host.post("/own")
    async def own(other: Other) -> Other:
        return other

    return host


@pytest.fixture
async def host(settings: Settings, seeded: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    del seeded
    async with started(host_of(settings)) as client:
        yield client


async def test_refusals_are_answered_as_in_our_own_app(host: httpx.AsyncClient) -> None:
    denied = await host.put(SEEDED, headers=STRANGER, json={})
    assert (denied.status_code, denied.json()) == (403, {"detail": "Access denied"})
    unknown = await host.delete(UNKNOWN, headers=OWNER)
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Collection not found"})


async def test_invalid_bodies_are_answered_as_in_our_own_app(host: httpx.AsyncClient) -> None:
    invalid = await host.post(ALL, headers=OWNER, content=b'{"collection_name": NaN}')
    assert invalid.status_code == 422
    assert invalid.json()["detail"][0]["input"] == "NaN"
    not_text = await host.post(ALL, headers=OWNER, content=b'{"collection_name": "\xff"}')
    assert (not_text.status_code, list(not_text.json())) == (400, ["detail"])


async def test_json_without_a_content_type_is_accepted(host: httpx.AsyncClient) -> None:
    assert (await host.post(ALL, headers=OWNER, content=b'{"collection_name": "x"}')).status_code == 200


async def test_the_bounds_of_work_and_of_bodies_hold_there_too(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "PLACE_WAIT_SECONDS", 0.05)
    app = host_of(settings)
    async with started(app) as host:
        large = await host.post(ALL, headers=OWNER, content=b" " * (MAX_BODY_BYTES + 1))
        assert (large.status_code, large.json()) == (413, {"detail": "The body is too large"})
        full = app.state.collection_sync.bulkheads.reads
        async with AsyncExitStack() as stack:
            for _ in range(PLACES):
                await stack.enter_async_context(full.place())
            refused = await host.get(ALL, headers=OWNER)
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
            assert (await host.post("/own", json={"name": "x" * MAX_BODY_BYTES})).status_code == 200


async def test_failures_tell_nothing_even_in_debug_mode(
    host: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    await seeded.execute("ALTER TABLE activity_logs ADD CONSTRAINT nothing CHECK (false) NOT VALID")
    failed = await host.post(ALL, headers=OWNER, json={"collection_name": "x"})
    assert (failed.status_code, failed.json()) == (500, {"detail": "Internal Server Error"})


async def test_an_absent_database_is_answered_as_in_our_own_app(settings: Settings) -> None:
    nowhere = SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    async with started(host_of(settings.model_copy(update={"database_url": nowhere}))) as host:
        away = await host.get(ALL, headers=OWNER)
    assert (away.status_code, away.headers["Retry-After"]) == (503, "1")


async def test_the_gateways_token_guards_the_router_and_not_the_hosts_routes(settings: Settings) -> None:
    guarded = settings.model_copy(update={"gateway_token": SecretStr("secret")})
    async with started(host_of(guarded)) as host:
        assert (await host.get(ALL, headers=OWNER)).status_code == 401
        assert (await host.post("/own", json={"name": "x"})).status_code == 200


async def test_the_hosts_own_routes_keep_the_hosts_manners(host: httpx.AsyncClient) -> None:
    assert (await host.post("/own", json={})).status_code == 418
    assert (await host.post("/own", content=b'{"name": "x"}')).status_code == 418  # strict content type


async def test_writes_reach_the_outbox_under_a_prefix(
    settings: Settings, seeded: asyncpg.Connection, engine: AsyncEngine
) -> None:
    async with started(host_of(settings, prefix="/api/v1")) as host:
        host.base_url = httpx.URL("http://api.example/api/v1")
        path = await create(host)
        assert (await host.put(path, headers=OWNER, json={"color": "#000000"})).status_code == 200
        assert (await host.patch(path, headers=OWNER, json={})).headers["allow"] == "PUT"
    await drain(engine)
    assert await seeded.fetchval(
        "SELECT count(*) FROM project_collections WHERE collection_id = $1", path.rpartition("/")[2]
    ) == 1  # fmt: skip
