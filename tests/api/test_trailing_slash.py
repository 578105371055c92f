"""A slash too many: the redirect of the legacy service, from behind the gate and without a scheme made up."""

from urllib.parse import urljoin

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from api.main import create_app
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, SEEDED, started
from tests.api.test_credentials import ADMIN, GATEWAY, concrete, kind_of, routes_of
from tests.api.test_mounted import host_of

TOKENS = {"X-Gateway-Token": GATEWAY, "X-Admin-Token": ADMIN}


@pytest.fixture
def guarded(settings: Settings) -> FastAPI:
    tokens = {"gateway_token": SecretStr(GATEWAY), "admin_token": SecretStr(ADMIN)}
    return create_app(settings.model_copy(update=tokens))


def is_ours(path: str) -> bool:
    return kind_of(path) != "documents"


async def test_each_path_with_a_slash_leads_to_the_one_without(guarded: FastAPI) -> None:
    async with started(guarded) as client:
        for method, path in routes_of(guarded):
            for slashes in ("/", "//", "/?a=1&b=/"):
                asked = client.base_url.join(concrete(path) + slashes)
                answer = await client.request(method, asked, headers=TOKENS | OWNER, content=b"\xff")
                if not is_ours(path):
                    assert answer.status_code == 404
                    continue
                assert (answer.status_code, answer.content) == (307, b"")
                location = answer.headers["Location"]
                assert location.startswith("/" if slashes == "//" else "../")
                right = concrete(path) + ("?a=1&b=/" if "?" in slashes else "")
                assert urljoin(str(asked), location) == str(client.base_url.join(right))


async def test_without_the_token_nobody_is_told_what_there_is(guarded: FastAPI, settings: Settings) -> None:
    named = OWNER | {"X-Request-ID": "its-own"}
    async with started(guarded) as client:
        for method, path in routes_of(guarded):
            answer = await client.request(method, concrete(path) + "/", headers=named)
            expected = {"people": 401, "admin": 401, "console": 307, "health": 307, "documents": 404}[
                kind_of(path)
            ]
            assert (answer.status_code, "Location" in answer.headers) == (expected, expected == 307)
            refused = await client.request(method, concrete(path), headers=named)
            if expected == 401:
                assert (answer.content, answer.headers) == (refused.content, refused.headers)
    async with started(create_app(settings)) as client:
        unknown = await client.get("/admin/unknown")
        closed = await client.get("/admin/backfill/")
        assert (closed.status_code, closed.content) == (unknown.status_code, unknown.content)


async def test_whatever_the_method_it_is_told_where_to_ask_as_the_legacy_service_did(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    del seeded
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"):
        assert (await client.request(method, f"{ALL}/", headers=OWNER)).status_code == 307
    assert (await client.request("PATCH", f"{ALL}/", headers=OWNER, follow_redirects=True)).status_code == 405
    new = {"collection_name": "x"}
    made = await client.post(f"{ALL}/", headers=OWNER, json=new, follow_redirects=True)
    assert made.json()["collection_name"] == "x"
    gone = await client.delete(f"{SEEDED}/", headers=OWNER, follow_redirects=True)
    assert gone.json() == {"message": "Collection deleted successfully"}
    assert (await client.get("/projects/", headers=OWNER)).status_code == 404
    assert (await client.get("/", headers=OWNER)).status_code == 404


@pytest.mark.parametrize("name", ["a%3Ab", "a%3Fb", "a%23b", "%C3%A4%20b", "c%25"])
async def test_whatever_a_name_holds_it_stays_the_name(client: httpx.AsyncClient, name: str) -> None:
    asked = httpx.URL("http://api.example").copy_with(raw_path=f"{ALL}/{name}/".encode())
    answer = await client.put(asked, headers=OWNER, json={})
    assert (answer.status_code, answer.headers["Location"]) == (307, f"../{name}")


async def test_in_a_hosts_app_and_under_its_prefix_it_is_the_same(settings: Settings) -> None:
    secret = settings.model_copy(update={"gateway_token": SecretStr(GATEWAY)})
    async with started(host_of(secret, prefix="/api/v1")) as host:
        assert (await host.post(f"/api/v1{ALL}/", headers=OWNER)).status_code == 401
        answer = await host.post(f"/api/v1{ALL}/", headers=OWNER | TOKENS)
        assert (answer.status_code, answer.headers["Location"]) == (307, "../collections")
