"""Which credentials open which door: every route of the OpenAPI document, with every kind of token."""

import re

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from api.main import create_app
from shared.settings import Settings
from tests.api.clients import started
from tests.legacy_rows import seed

GATEWAY, ADMIN, WRONG = "the gateway's", "the administrators'", "nobody's"
CREDENTIALS: dict[str, dict[str, str]] = {
    "none": {},
    "empty": {"Authorization": "Bearer ", "X-Gateway-Token": "", "X-Admin-Token": ""},
    "another scheme": {"Authorization": f"Basic {GATEWAY}"},
    "a wrong token": {"Authorization": f"Bearer {WRONG}", "X-Gateway-Token": WRONG, "X-Admin-Token": WRONG},
    "a prefix": {"X-Gateway-Token": GATEWAY[:-1], "X-Admin-Token": ADMIN[:-1]},
    "exchanged": {"X-Gateway-Token": ADMIN, "X-Admin-Token": GATEWAY},
    "the gateway's, as bearer": {"Authorization": f"Bearer {GATEWAY}"},
    "the gateway's, in its header": {"X-Gateway-Token": GATEWAY},
    "the administrators', as bearer": {"Authorization": f"Bearer {ADMIN}"},
    "the administrators', in its header": {"X-Admin-Token": ADMIN},
}
# Who passes where both tokens are configured; everybody else gets 401.
PASSES = {
    "people": {"the gateway's, as bearer", "the gateway's, in its header"},
    "administrators": {"the administrators', as bearer", "the administrators', in its header"},
    "everybody": CREDENTIALS.keys(),
}


def kind_of(path: str) -> str:
    if path.startswith("/admin/"):
        return "administrators"
    return "people" if path.startswith("/projects/") else "everybody"


def routes_of(settings: Settings) -> list[tuple[str, str]]:
    paths = create_app(settings).openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


async def send(client: httpx.AsyncClient, method: str, path: str, credentials: str) -> httpx.Response:
    headers = {"User-ID": "owner", **CREDENTIALS[credentials]}
    url = re.sub(r"\{\w+\}", "1", path)
    return await client.request(method, url, params={"wait_seconds": "0"}, headers=headers)


@pytest.fixture
def guarded(settings: Settings) -> Settings:
    return settings.model_copy(update={"gateway_token": SecretStr(GATEWAY), "admin_token": SecretStr(ADMIN)})


async def test_with_tokens_configured_each_opens_its_own_doors_only(
    guarded: Settings, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    wrong = []
    async with started(create_app(guarded)) as client:
        for method, path in routes_of(guarded):
            for credentials in CREDENTIALS:
                answer = await send(client, method, path, credentials)
                passed = answer.status_code != 401 and answer.json() != {"detail": "Not Found"}
                if passed != (credentials in PASSES[kind_of(path)]):
                    wrong.append((method, path, credentials, answer.status_code))
    assert wrong == []


async def test_without_tokens_people_need_none_and_there_are_no_administrators(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    statuses: dict[str, set[int]] = {"people": set(), "administrators": set(), "everybody": set()}
    async with started(create_app(settings)) as client:
        for method, path in routes_of(settings):
            for credentials in CREDENTIALS:
                answer = await send(client, method, path, credentials)
                statuses[kind_of(path)].add(answer.status_code)
    assert 401 not in statuses["people"]
    assert statuses["administrators"] == {404}
    assert statuses["everybody"] == {200}
