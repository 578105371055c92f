"""Every answer, of a route or of a gate, and every log line about a request carry its id and its trace."""

import re
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from structlog.testing import capture_logs
from structlog.typing import EventDict

from api import health
from api.gate.body import MAX_BODY_BYTES
from api.gate.identified import Identified
from api.main import create_app
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, SEEDED, STRANGER, UNKNOWN, started
from tests.api.test_faults import UNAVAILABLE
from tests.api.test_mounted import host_of

DRAWN = re.compile(r"[0-9a-f]{32}")
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
NOWHERE = SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
WELL_FORMED = ["a", "x" * 128, "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "Root=1-67:a.b~c+/=@_-"]
MALFORMED = [
    [b""], [b"x" * 129], [b"a b"], [b"a\tb"], [b"<b>"], [b"\xc3\xa4"], [b"a,b"], [b"a\n"], [b"a", b"b"],
]  # fmt: skip

ANSWERS: list[tuple[int, str, str, dict[str, Any]]] = [
    (200, "GET", ALL, {}),
    (200, "POST", ALL, {"json": {"collection_name": "x"}}),
    (200, "HEAD", "/healthz", {}),
    (200, "GET", "/readyz", {}),
    (200, "GET", "/metrics", {}),
    (200, "GET", "/openapi.json", {}),
    (307, "GET", f"{ALL}/", {}),
    (400, "POST", ALL, {"content": b'{"collection_name": "\xff"}'}),
    (400, "GET", ALL, {"headers": [*OWNER.items(), *STRANGER.items()]}),
    (403, "GET", ALL, {"headers": STRANGER}),
    (404, "PUT", UNKNOWN, {"json": {}}),
    (404, "GET", "/nowhere", {}),
    (404, "GET", "/admin/backfill", {}),
    (405, "PATCH", SEEDED, {}),
    (405, "PUT", "/openapi.json", {}),
    (413, "POST", ALL, {"content": b" " * (MAX_BODY_BYTES + 1)}),
    (422, "POST", ALL, {"json": {}}),
]  # fmt: skip


def line_of(lines: list[EventDict], event: str) -> EventDict:
    (line,) = [line for line in lines if line["event"] == event]
    return line


async def test_every_kind_of_answer_has_an_id_of_its_own(client: httpx.AsyncClient) -> None:
    drawn = set()
    for status, method, path, more in ANSWERS:
        answer = await client.request(method, path, **{"headers": OWNER} | more)
        assert (answer.status_code, "X-Trace-ID" in answer.headers) == (status, False), (method, path)
        (name,) = answer.headers.get_list("X-Request-ID")
        assert DRAWN.fullmatch(name), (status, method, path)
        drawn.add(name)
    assert len(drawn) == len(ANSWERS)


@pytest.mark.parametrize(
    "name", ["a", "x" * 128, "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "Root=1-67:a.b~c+/=@_-"]
)
async def test_a_well_formed_id_of_the_clients_own_is_taken_over(
    name: str, client: httpx.AsyncClient
) -> None:
    for path in (ALL, "/nowhere", "/healthz"):
        answer = await client.get(path, headers={**OWNER, "X-Request-ID": name})
        assert answer.headers.get_list("X-Request-ID") == [name]


@pytest.mark.parametrize(
    "names",
    [[b""], [b"x" * 129], [b"a b"], [b"a\tb"], [b"<b>"], [b"\xc3\xa4"], [b"a,b"], [b"a\n"], [b"a", b"b"]],
)
async def test_any_other_is_replaced(names: list[bytes], client: httpx.AsyncClient) -> None:
    headers = [(b"User-ID", OWNER["User-ID"].encode()), *((b"X-Request-ID", name) for name in names)]
    answer = await client.get(ALL, headers=headers)
    (name,) = answer.headers.get_list("X-Request-ID")
    assert DRAWN.fullmatch(name)


async def test_an_answer_names_the_trace_that_its_caller_began(client: httpx.AsyncClient) -> None:
    for path in (ALL, "/nowhere", "/healthz"):
        answer = await client.get(path, headers={**OWNER, "traceparent": TRACEPARENT})
        assert answer.headers.get_list("X-Trace-ID") == [TRACE]
        malformed = await client.get(path, headers={**OWNER, "traceparent": TRACEPARENT.upper()})
        assert "X-Trace-ID" not in malformed.headers


async def test_each_line_about_a_request_has_the_names_of_its_answer(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, settings: Settings
) -> None:
    traced = {**OWNER, "traceparent": TRACEPARENT}

    async def asked(event: str, client: httpx.AsyncClient, headers: dict[str, str]) -> httpx.Response:
        with capture_logs() as lines:
            answer = await client.post(ALL, headers=headers, json={"collection_name": "x"})
        line = line_of(lines, event)
        named = (answer.headers["X-Request-ID"], answer.headers["X-Trace-ID"])
        assert (line.get("request_id"), line.get("trace_id")) == named
        return answer

    assert (await asked("collection_written", client, traced)).status_code == 200
    assert (await asked("access_refused", client, traced | STRANGER)).status_code == 403
    await seeded.execute("ALTER TABLE activity_logs ADD CONSTRAINT nothing CHECK (false) NOT VALID")
    assert (await asked("request_failed", client, traced)).status_code == 500
    async with started(create_app(settings.model_copy(update={"database_url": NOWHERE}))) as nowhere:
        assert (await asked("database_unavailable", nowhere, traced)).json() == UNAVAILABLE


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        ("SeveralCallersError", 400, [*OWNER.items(), *STRANGER.items()]),
        ("UnknownGatewayError", 401, [("X-Gateway-Token", "canary"), *OWNER.items()]),
        ("AccessDeniedError", 403, [("X-Gateway-Token", "secret"), *STRANGER.items()]),
    ],
)
async def test_a_refusal_of_access_is_a_line_without_what_was_offered(
    error: str, status: int, headers: list[tuple[str, str]], settings: Settings, seeded: asyncpg.Connection
) -> None:
    del seeded
    secret = SecretStr("secret") if error != "SeveralCallersError" else None
    async with started(create_app(settings.model_copy(update={"gateway_token": secret}))) as client:
        with capture_logs() as lines:
            answer = await client.get(ALL, headers=headers)
    assert answer.status_code == status
    assert lines == [
        {
            "event": "access_refused",
            "log_level": "info",
            "status": status,
            "error": error,
            "method": "GET",
            "route": "/projects/{project_id}/collections",
            "request_id": answer.headers["X-Request-ID"],
        }
    ]


async def test_what_fails_where_nothing_answers_for_it_is_answered_and_logged_by_name(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "check_postgresql", None)  # calling it is a defect
    with capture_logs() as lines:
        answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()) == (500, {"detail": "Internal Server Error"})
    line = line_of(lines, "request_failed")
    assert (line["route"], line["request_id"]) == ("/readyz", answer.headers["X-Request-ID"])


async def test_a_host_has_ids_once_it_adds_the_middleware(
    settings: Settings, seeded: asyncpg.Connection
) -> None:
    del seeded
    bare, named = host_of(settings), host_of(settings)
    named.add_middleware(Identified)
    for app, has_ids in ((bare, False), (named, True)):
        assert isinstance(app, FastAPI)
        async with started(app) as host:
            with capture_logs() as lines:
                answer = await host.put(SEEDED, headers={**OWNER, "traceparent": TRACEPARENT}, json={})
        line = line_of(lines, "collection_written")
        assert line["trace_id"] == TRACE  # either way
        assert line.get("request_id") == answer.headers.get("X-Request-ID")
        assert ("request_id" in line) == has_ids
