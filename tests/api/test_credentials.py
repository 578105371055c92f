"""Which credentials open which routes: one table, and every route of the app held against it."""

from collections.abc import Iterator

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr

from api.main import create_app
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, P1, STRANGER, started
from tests.api.recording import NAMES

GATEWAY, ADMIN = "the gateway's token", "the administrators' token"

# A route that begins so is of this kind; one that begins otherwise has no place in the table and fails.
KINDS = {
    "/healthz": "health",
    "/readyz": "health",
    "/metrics": "health",
    "/openapi.json": "documents",
    "/docs": "documents",
    "/projects/": "people",
    "/admin/console": "console",
    "/admin/": "admin",
}

CREDENTIALS: dict[str, dict[str, str]] = {
    "nothing": {},
    "wrong gateway": {"X-Gateway-Token": "wrong"},
    "gateway": {"X-Gateway-Token": GATEWAY},
    "gateway as bearer": {"Authorization": f"Bearer {GATEWAY}"},
    "wrong admin": {"X-Admin-Token": "wrong"},
    "admin": {"X-Admin-Token": ADMIN},
    "admin as bearer": {"Authorization": f"Bearer {ADMIN}"},
    "both": {"X-Gateway-Token": GATEWAY, "X-Admin-Token": ADMIN},
    "both, exchanged": {"X-Gateway-Token": ADMIN, "X-Admin-Token": GATEWAY},
    "wrong bearer": {"Authorization": "Bearer wrong"},
}

# kind | GATEWAY_TOKEN | ADMIN_TOKEN | one answer for each of CREDENTIALS, in their order; "ok" is the
# route's own answer, whatever it is. A route that is closed answers 404 as if it did not exist.
TABLE = """
    health    | unset | unset | ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
    health    | unset | set   | ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
    health    | set   | unset | ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
    health    | set   | set   | ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
    documents | unset | unset | ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
    documents | unset | set   | ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
    documents | set   | unset | ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
    documents | set   | set   | ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
    people    | unset | unset | ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
    people    | unset | set   | ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
    people    | set   | unset | 401 401 ok  ok  401 401 401 ok  401 401
    people    | set   | set   | 401 401 ok  ok  401 401 401 ok  401 401
    console   | unset | unset | 404 404 404 404 404 404 404 404 404 404
    console   | unset | set   | ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
    console   | set   | unset | 404 404 404 404 404 404 404 404 404 404
    console   | set   | set   | ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
    admin     | unset | unset | 404 404 404 404 404 404 404 404 404 404
    admin     | unset | set   | 401 401 401 401 401 ok  ok  ok  401 401
    admin     | set   | unset | 404 404 404 404 404 404 404 404 404 404
    admin     | set   | set   | 401 401 401 401 401 ok  ok  ok  401 401
"""

PATH = {"project_id": P1, "collection_id": NAMES["C_SEED"]}
ROWS_WRITTEN = """
    SELECT (SELECT count(*) FROM outbox_events) + (SELECT count(*) FROM audit_runs)
        + (SELECT count(*) FROM backfill_runs) + (SELECT count(*) FROM activity_logs)
        + (SELECT count(*) FROM operator_acts) + (SELECT count(*) FROM phase_turns)
"""


def expectations() -> dict[tuple[str, bool, bool], dict[str, str]]:
    """Read TABLE: by kind and configured tokens, the answer to each credential."""
    rows = (line.split("|") for line in TABLE.strip().splitlines())
    return {
        (kind.strip(), gateway.strip() == "set", admin.strip() == "set"): dict(
            zip(CREDENTIALS, answers.split(), strict=True)
        )
        for kind, gateway, admin, answers in rows
    }


def routes_of(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Yield method and path of everything that the app answers to."""
    for route in iter_route_contexts(app.routes):
        assert route.path is not None
        for method in sorted(route.methods or ()):
            yield method, route.path


def kind_of(path: str) -> str:
    kinds = [kind for beginning, kind in KINDS.items() if path.startswith(beginning)]
    assert kinds, f"{path} is of no kind that KINDS and TABLE know: say who may call it"
    return kinds[0]


def concrete(path: str) -> str:
    """Fill in the path; what is not of the recorded seed becomes 1."""
    parts = (PATH.get(part[1:-1], "1") if part.startswith("{") else part for part in path.split("/"))
    return "/".join(parts)


async def ask(client: httpx.AsyncClient, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    body = {"collection_name": "x"} if kind_of(path) == "people" and method in {"POST", "PUT"} else None
    query = {"wait_seconds": 0} if path.startswith("/admin/verify") else None
    return await client.request(method, concrete(path), headers=OWNER | headers, json=body, params=query)


def outcome(answer: httpx.Response) -> str:
    """Sort the answer into those of TABLE."""
    if answer.status_code == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        return "401"
    if answer.status_code == 404 and answer.json() == {"detail": "Not Found"}:
        return "404"
    assert answer.status_code < 500, answer.text
    return "ok"


@pytest.mark.parametrize("gateway_is_set", [pytest.param(False, marks=pytest.mark.wide), True])
@pytest.mark.parametrize("admin_is_set", [False, True])
async def test_every_route_answers_every_credential_as_the_table_says(
    settings: Settings, seeded: asyncpg.Connection, *, gateway_is_set: bool, admin_is_set: bool
) -> None:
    tokens = {
        "gateway_token": SecretStr(GATEWAY) if gateway_is_set else None,
        "admin_token": SecretStr(ADMIN) if admin_is_set else None,
    }
    app = create_app(settings.model_copy(update=tokens))
    table = expectations()
    wrong: list[tuple[str, str, str, str, str]] = []
    async with started(app) as client:
        for method, path in routes_of(app):
            expected = table[kind_of(path), gateway_is_set, admin_is_set]
            for credential, headers in CREDENTIALS.items():
                await seeded.execute("UPDATE collections SET is_active = true")
                before = await seeded.fetchval(ROWS_WRITTEN)
                actual = outcome(await ask(client, method, path, headers))
                if actual != expected[credential]:
                    wrong.append((method, path, credential, actual, expected[credential]))
                if actual != "ok":
                    assert await seeded.fetchval(ROWS_WRITTEN) == before, (method, path, credential)
    assert not wrong


async def test_what_the_table_calls_ok_does_what_was_asked(
    settings: Settings, seeded: asyncpg.Connection
) -> None:
    tokens = {"gateway_token": SecretStr(GATEWAY), "admin_token": SecretStr(ADMIN)}
    app = create_app(settings.model_copy(update=tokens))
    async with started(app) as client:
        for method, path in routes_of(app):
            if kind_of(path) != "admin":
                await seeded.execute("UPDATE collections SET is_active = true")
                answer = await ask(client, method, path, CREDENTIALS["gateway"])
                assert answer.status_code == 200, (method, path)


async def test_two_callers_in_one_request_are_no_caller(
    settings: Settings, seeded: asyncpg.Connection
) -> None:
    """Not even the same one twice: a proxy that appends would vouch for the first as well."""
    app = create_app(settings.model_copy(update={"gateway_token": SecretStr(GATEWAY)}))
    callers = [OWNER["User-ID"], STRANGER["User-ID"]]
    token = [("X-Gateway-Token", GATEWAY)]
    async with started(app) as client:
        for method, path in routes_of(app):
            if kind_of(path) != "people":
                continue
            for names in (callers, callers[::-1], [callers[0]] * 2, ["", callers[0]]):
                two = [(header, name) for header, name in zip(("User-ID", "user-id"), names, strict=True)]
                before = await seeded.fetchval(ROWS_WRITTEN)
                answer = await client.request(method, concrete(path), headers=two + token, content=b"\xff")
                assert (answer.status_code, answer.json()) == (400, {"detail": "More than one User-ID"})
                unknown = await client.request(method, concrete(path), headers=two, content=b"\xff")
                assert unknown.status_code == 401  # the token comes first
                assert await seeded.fetchval(ROWS_WRITTEN) == before
        joined = await client.get(ALL, headers=[("User-ID", ", ".join(callers)), *token])
        assert joined.status_code == 403  # as a proxy may join them: nobody is called so


async def test_of_several_tokens_the_right_one_opens_wherever_it_stands(settings: Settings) -> None:
    """Who has it is who may: a proxy may add its own to what a client sent."""
    app = create_app(settings.model_copy(update={"gateway_token": SecretStr(GATEWAY)}))
    right, wrong = f"Bearer {GATEWAY}", "Bearer wrong"
    offers = {
        ("Authorization", right, wrong): 403,
        ("Authorization", wrong, right): 403,
        ("Authorization", "Basic eDp5", right): 403,
        ("X-Gateway-Token", "wrong", GATEWAY): 403,
        ("X-Gateway-Token", GATEWAY, "wrong"): 403,
        ("Authorization", wrong, wrong): 401,
        ("Authorization", f"{wrong}, {right}", ""): 401,
        ("X-Gateway-Token", f"wrong, {GATEWAY}", ""): 401,
    }
    async with started(app) as client:
        for (header, *offered), status in offers.items():
            answer = await client.get(
                ALL, headers=[*STRANGER.items(), *((header, token) for token in offered)]
            )
            assert answer.status_code == status, offered


def test_the_table_is_whole() -> None:
    assert set(expectations()) == {
        (kind, gateway, admin)
        for kind in KINDS.values()
        for gateway in (False, True)
        for admin in (False, True)
    }


def test_a_route_of_no_known_kind_fails() -> None:
    for path in ("/status", "/administrators", "/project"):
        with pytest.raises(AssertionError, match="say who may call it"):
            kind_of(path)
