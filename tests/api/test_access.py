"""Who may do what: the project's people, the gateway, and nobody while writes are switched off."""

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from api.main import create_app
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, P1, P3, SEEDED, STRANGER, UNKNOWN, started
from tests.api.recording import NAMES

OWNER_BY_MAIL = {"User-ID": NAMES["OWNER_EMAIL"]}
TOKEN = "gateway secret à"  # its last byte, read as latin-1, is a blank


def guarded(settings: Settings) -> Settings:
    return settings.model_copy(update={"gateway_token": SecretStr(TOKEN)})


def with_token(caller: dict[str, str], offered: dict[bytes, bytes]) -> httpx.Headers:
    headers = httpx.Headers(caller)
    headers.update(offered)
    return headers


async def test_an_email_address_stands_for_its_user_on_get_only(client: httpx.AsyncClient) -> None:
    assert (await client.get(ALL, headers=OWNER_BY_MAIL)).status_code == 200
    assert (await client.post(ALL, headers=OWNER_BY_MAIL, json={"collection_name": "x"})).status_code == 403
    assert (await client.put(SEEDED, headers=OWNER_BY_MAIL, json={})).status_code == 403
    assert (await client.delete(SEEDED, headers=OWNER_BY_MAIL)).status_code == 403


async def test_an_email_address_without_an_at_sign_is_not_looked_up(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    await seeded.execute("UPDATE users SET email = 'plain' WHERE user_id = $1", NAMES["OWNER"])
    assert (await client.get(ALL, headers={"User-ID": "plain"})).status_code == 403


async def test_an_absent_header_is_the_default_user_and_an_empty_one_is_nobody(
    client: httpx.AsyncClient,
) -> None:
    path = f"/projects/{P3}/collections"  # the project of default_user
    body = {"collection_name": "x"}
    assert (await client.get(path)).status_code == 200
    assert (await client.post(path, json=body)).json()["created_by"] == "default_user"
    assert (await client.get(path, headers={"User-ID": ""})).status_code == 403
    assert (await client.post(path, headers={"User-ID": ""}, json=body)).status_code == 403


async def test_a_collaborator_who_is_not_active_has_no_access(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    editor = {"User-ID": NAMES["EDITOR"]}
    assert (await client.get(ALL, headers=editor)).status_code == 200
    for is_active in ("false", "NULL"):
        await seeded.execute(f"UPDATE project_collaborators SET is_active = {is_active}")  # noqa: S608
        assert (await client.get(ALL, headers=editor)).status_code == 403
        assert (await client.delete(SEEDED, headers=editor)).status_code == 403


async def test_read_only_mode_refuses_writes_after_the_body_and_before_access(
    settings: Settings, seeded: asyncpg.Connection
) -> None:
    async with started(create_app(settings.model_copy(update={"read_only_mode": True}))) as client:
        assert (await client.post(ALL, headers=STRANGER, json={})).status_code == 422
        refusals = [
            await client.post(ALL, headers=STRANGER, json={"collection_name": "x"}),
            await client.put(UNKNOWN, headers=STRANGER, json={}),
            await client.delete("/projects/a%00b/collections/x", headers=STRANGER),
        ]
        assert {answer.json()["detail"][:35] for answer in refusals} == {
            "Collections are in read-only mode. "
        }
        assert (await client.get(ALL, headers=OWNER)).status_code == 200
    assert await seeded.fetchval("SELECT count(*) FROM outbox_events") == 0


@pytest.mark.parametrize(
    "offered",
    [
        {},
        {b"Authorization": b"Bearer"},
        {b"Authorization": b"Bearer wrong"},
        {b"Authorization": b"Basic " + TOKEN.encode()},
        {b"X-Gateway-Token": b""},
        {b"X-Gateway-Token": TOKEN.encode() + b"x"},
        {b"X-Gateway-Token": TOKEN.encode("latin-1")},
    ],
    ids=str,
)
async def test_a_request_without_the_gateways_token_is_refused_before_its_body_is_read(
    settings: Settings, offered: dict[bytes, bytes]
) -> None:
    async with started(create_app(guarded(settings))) as client:
        for method, path in [
            ("GET", ALL),
            ("POST", ALL),
            ("PUT", SEEDED),
            ("DELETE", SEEDED),
            ("GET", f"{SEEDED}/sync"),
        ]:
            answer = await client.request(method, path, headers=with_token(OWNER, offered), content=b"\xff")
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert list(answer.json()) == ["detail"]
            assert TOKEN not in answer.text


@pytest.mark.parametrize(
    "offered",
    [
        {b"Authorization": b"Bearer " + TOKEN.encode()},
        {b"Authorization": b"bearer " + TOKEN.encode()},
        {b"X-Gateway-Token": TOKEN.encode()},
        {b"Authorization": b"Bearer of the user", b"X-Gateway-Token": TOKEN.encode()},
    ],
    ids=str,
)
async def test_a_request_with_the_gateways_token_passes_in_either_header(
    settings: Settings, seeded: asyncpg.Connection, offered: dict[bytes, bytes]
) -> None:
    del seeded
    async with started(create_app(guarded(settings))) as client:
        assert (await client.get(ALL, headers=with_token(OWNER, offered))).status_code == 200
        assert (await client.get(ALL, headers=with_token(STRANGER, offered))).status_code == 403


async def test_health_needs_no_token(settings: Settings) -> None:
    async with started(create_app(guarded(settings))) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200


async def test_a_project_that_is_only_linked_gives_no_access_to_the_collection(
    client: httpx.AsyncClient,
) -> None:
    through_p2 = f"/projects/{NAMES['P2']}/collections/{NAMES['C_SHARED']}"
    caller = {"User-ID": NAMES["MAILUSER"]}
    assert (await client.put(through_p2, headers=caller, json={})).status_code == 404
    assert (await client.put(through_p2.replace(NAMES["P2"], P1), headers=caller, json={})).status_code == 403


async def test_a_caller_with_a_nul_is_nobody_where_a_server_lets_it_through(
    client: httpx.AsyncClient,
) -> None:
    for caller in ("a\0b", "a\0@b"):
        headers = {"User-ID": caller}
        answers = [
            await client.get(ALL, headers=headers),
            await client.get(f"{SEEDED}/sync", headers=headers),
            await client.post(ALL, headers=headers, json={"collection_name": "x"}),
            await client.put(SEEDED, headers=headers, json={}),
            await client.delete(SEEDED, headers=headers),
        ]
        assert [answer.status_code for answer in answers] == [403] * 5
