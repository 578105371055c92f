"""HEAD wherever GET is, and an Allow that names all that a path takes, but where a client was recorded."""

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from api.main import create_app
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, SEEDED, STRANGER, started
from tests.api.test_credentials import concrete, routes_of

ADMIN = {"X-Admin-Token": "secret"}
ASKED = {**OWNER, **ADMIN, "X-Request-ID": "one"}
MOVING = {"/metrics", "/admin/status"}  # they hold what changes between the two requests
TAKEN = {
    ALL: "GET, HEAD, POST",
    SEEDED: "PUT",  # as recorded, although DELETE is taken
    f"{SEEDED}/sync": "GET, HEAD",
    "/healthz": "GET, HEAD",
    "/readyz": "GET, HEAD",
    "/metrics": "GET, HEAD",
    "/admin/backfill": "GET, HEAD, POST",
    "/admin/backfill/pause": "POST",
    "/admin/dead-letters": "GET, HEAD",
    "/admin/dead-letters/1/replay": "POST",
}


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings.model_copy(update={"admin_token": SecretStr("secret")}))


async def test_whatever_answers_get_answers_head_with_the_same_head_and_no_body(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    asked = 0
    for path in {path for method, path in routes_of(app) if method == "GET"}:
        query = {"wait_seconds": 0, "audit_id": 999} if "verify" in path else None
        whole, head = [
            await client.request(method, concrete(path), headers=ASKED, params=query)
            for method in ("GET", "HEAD")
        ]
        assert whole.content
        assert (head.status_code, head.content) == (whole.status_code, b""), path
        if path not in MOVING:
            assert head.headers == whole.headers, path
        asked += 1
    assert asked > 8


async def test_head_is_refused_where_get_is_and_finds_the_place_of_a_read(client: httpx.AsyncClient) -> None:
    assert (await client.head(ALL, headers=STRANGER)).status_code == 403
    assert (await client.head("/admin/backfill")).status_code == 401
    assert (await client.head(SEEDED, headers=OWNER)).status_code == 405
    assert (await client.head("/nowhere", headers=OWNER)).status_code == 404
    assert (await client.head(ALL, headers={"User-ID": "owner@lab.example"})).status_code == 200  # as on GET


@pytest.mark.parametrize(("path", "taken"), TAKEN.items())
async def test_405_names_all_that_the_path_takes(
    path: str, taken: str, client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    for method in ("PATCH", "OPTIONS", "TRACE", "INVENTED"):
        answer = await client.request(method, path, headers=ASKED)
        assert (answer.status_code, answer.headers["Allow"]) == (405, taken)
        assert answer.json() == {"detail": "Method Not Allowed"}
    assert await seeded.fetchval("SELECT count(*) FROM outbox_events") == 0


async def test_without_the_token_nobody_learns_what_a_path_takes(settings: Settings) -> None:
    async with started(create_app(settings)) as client:
        closed = await client.patch("/admin/backfill")
        assert (closed.status_code, closed.json(), "Allow" in closed.headers) == (
            404, {"detail": "Not Found"}, False,
        )  # fmt: skip
    secret = settings.model_copy(update={"gateway_token": SecretStr("secret")})
    async with started(create_app(secret)) as client:
        for path in (ALL, SEEDED):
            refused = await client.patch(path, headers=OWNER)
            assert (refused.status_code, "Allow" in refused.headers) == (401, False)
