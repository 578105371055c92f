"""The OpenAPI document: valid, its examples true, and true of the answers that are really sent."""

import tomllib
from collections.abc import Iterator
from http import HTTPStatus

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from fastapi.openapi.models import OpenAPI
from pydantic import SecretStr

from api.main import create_app
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, SEEDED, STRANGER, UNKNOWN, started
from tests.api.json_schema import violations
from tests.api.recording import Json
from tests.forked import ROOT

LISTED = "/projects/{project_id}/collections"
ONE = "/projects/{project_id}/collections/{collection_id}"
ERRORS = {"400", "401", "403", "422", "500", "503"}
VERIFY = "/admin/verify-phase1-migration"
BACKFILL = "/admin/backfill"
LETTERS = "/admin/dead-letters"
PHASE = "/admin/phase"
ADMIN_ERRORS = {"401", "403", "404", "500", "503"}
BODY_ERRORS = {"400", "408", "413"}


@pytest.fixture
def document(app: FastAPI) -> Json:
    return app.openapi()


def media_types(document: Json) -> Iterator[tuple[str, Json]]:
    """Yield every request's and response's JSON with the place where it stands."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "requestBody" in operation:
                yield f"{method} {path}", operation["requestBody"]["content"]["application/json"]
            for status, response in operation["responses"].items():
                yield f"{method} {path} {status}", response["content"]["application/json"]


def examples_of(described: Json) -> list[Json]:
    """Collect the examples of a media type or a schema, in each form that OpenAPI has for them."""
    examples = described.get("examples", [])
    if isinstance(examples, dict):
        examples = [example["value"] for example in examples.values()]
    return [*examples, *([described["example"]] if "example" in described else [])]


def test_the_document_is_valid(document: Json) -> None:
    OpenAPI.model_validate(document)
    assert document["openapi"].startswith("3.1")


def test_its_version_is_the_packages(document: Json) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert document["info"]["version"] == project["version"]


def test_each_operation_is_called_as_its_function_is(document: Json) -> None:
    operations = [one for operations in document["paths"].values() for one in operations.values()]
    ids = [operation["operationId"] for operation in operations]
    assert {"list_collections", "pause_backfill", "readyz"} <= set(ids)
    assert len(set(ids)) == len(ids)
    assert all(name.isidentifier() for name in ids)
    titles = {operation["operationId"]: operation["summary"] for operation in operations}
    assert (titles["healthz"], titles["readyz"]) == ("Liveness", "Readiness")


def test_each_operation_documents_its_errors(document: Json) -> None:
    statuses = {
        (path, method): set(operation["responses"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert statuses == {
        (LISTED, "get"): {"200", "404"} | ERRORS,
        (LISTED, "post"): {"200"} | ERRORS | BODY_ERRORS,
        (ONE, "put"): {"200", "404"} | ERRORS | BODY_ERRORS,
        (ONE, "delete"): {"200", "404"} | ERRORS,
        (f"{ONE}/sync", "get"): {"200", "404"} | ERRORS,
        (VERIFY, "get"): {"200", "202", "422"} | ADMIN_ERRORS,
        (BACKFILL, "post"): {"202", "409", "422"} | ADMIN_ERRORS | BODY_ERRORS,
        (BACKFILL, "get"): {"200"} | ADMIN_ERRORS,
        (f"{BACKFILL}/pause", "post"): {"200", "409", "422"} | ADMIN_ERRORS,
        (f"{BACKFILL}/resume", "post"): {"200", "409", "422"} | ADMIN_ERRORS,
        (f"{BACKFILL}/cancel", "post"): {"200", "409", "422"} | ADMIN_ERRORS,
        ("/admin/status", "get"): {"200"} | ADMIN_ERRORS,
        ("/admin/collections/{collection_id}", "get"): {"200", "422"} | ADMIN_ERRORS,
        ("/admin/acts", "get"): {"200", "422"} | ADMIN_ERRORS,
        ("/admin/audit", "post"): {"202", "422"} | ADMIN_ERRORS,
        ("/admin/repair", "post"): {"202", "422"} | ADMIN_ERRORS,
        (PHASE, "get"): {"200"} | ADMIN_ERRORS,
        (f"{PHASE}/advance", "post"): {"200", "409", "422"} | ADMIN_ERRORS | BODY_ERRORS,
        (f"{PHASE}/back", "post"): {"200", "409", "422"} | ADMIN_ERRORS | BODY_ERRORS,
        (f"{LETTERS}/groups", "get"): {"200"} | ADMIN_ERRORS,
        (LETTERS, "get"): {"200", "422"} | ADMIN_ERRORS,
        (f"{LETTERS}/{{letter_id}}", "get"): {"200", "422"} | ADMIN_ERRORS,
        (f"{LETTERS}/{{letter_id}}/replay", "post"): {"200", "409", "422"} | ADMIN_ERRORS,
        (f"{LETTERS}/{{letter_id}}/discard", "post"): {"200", "409", "422"} | ADMIN_ERRORS,
        (f"{LETTERS}/replay", "post"): {"200", "422"} | ADMIN_ERRORS | BODY_ERRORS,
        (f"{LETTERS}/discard", "post"): {"200", "422"} | ADMIN_ERRORS | BODY_ERRORS,
        ("/healthz", "get"): {"200"},
        ("/readyz", "get"): {"200", "503"},
    }


def test_every_example_follows_its_own_schema(document: Json) -> None:
    checked = 0
    for where, media_type in media_types(document):
        for example in examples_of(media_type):
            assert not list(violations(document, media_type["schema"], example, where))
            checked += 1
    for name, schema in document["components"]["schemas"].items():
        for example in examples_of(schema):
            assert not list(violations(document, schema, example, name))
            checked += 1
    assert checked > 20


def test_every_request_and_every_answer_but_those_of_health_has_an_example(document: Json) -> None:
    schemas = document["components"]["schemas"]
    for where, media_type in media_types(document):
        if "/healthz" in where or "/readyz" in where:
            continue
        schema = media_type["schema"]
        reference = (schema.get("items") or schema.get("anyOf", [schema])[0])["$ref"]
        assert examples_of(media_type) or schemas[reference.rpartition("/")[2]].get("examples"), where


def test_each_operation_names_the_token_that_opens_it(document: Json) -> None:
    schemes = document["components"]["securitySchemes"]
    assert {name: (scheme["type"], scheme.get("name")) for name, scheme in schemes.items()} == {
        "GatewayBearer": ("http", None),
        "GatewayToken": ("apiKey", "X-Gateway-Token"),
        "AdminBearer": ("http", None),
        "AdminToken": ("apiKey", "X-Admin-Token"),
    }
    for path, operations in document["paths"].items():
        kind = "Admin" if "/admin" in path else "Gateway" if "/collections" in path else None
        expected: Json = [{f"{kind}Bearer": []}, {f"{kind}Token": []}] if kind else []
        assert all(operation.get("security", []) == expected for operation in operations.values()), path


async def test_real_answers_follow_the_document(client: httpx.AsyncClient, document: Json) -> None:
    requests: list[tuple[str, str, str, dict[str, str], Json, int]] = [
        ("get", LISTED, ALL, OWNER, None, 200),
        ("get", LISTED, ALL, STRANGER, None, 403),
        ("post", LISTED, ALL, OWNER, {"collection_name": "x"}, 200),
        ("post", LISTED, ALL, OWNER, {"color": 1}, 422),
        ("put", ONE, SEEDED, OWNER, {"icon": "star"}, 200),
        ("put", ONE, UNKNOWN, OWNER, {}, 404),
        ("get", f"{ONE}/sync", f"{SEEDED}/sync", OWNER, None, 200),
        ("delete", ONE, SEEDED, OWNER, None, 200),
        ("get", f"{ONE}/sync", f"{UNKNOWN}/sync", OWNER, None, 404),
        ("get", "/readyz", "/readyz", {}, None, 200),
        ("get", "/healthz", "/healthz", {}, None, 200),
    ]
    for method, path, url, headers, body, status in requests:
        answer = await client.request(method, url, headers=headers, json=body)
        assert answer.status_code == status
        described = document["paths"][path][method]["responses"][str(status)]
        schema = described["content"]["application/json"]["schema"]
        assert not list(violations(document, schema, answer.json(), f"{method} {url}"))


async def test_real_answers_to_administrators_follow_the_document(
    settings: Settings, seeded: asyncpg.Connection
) -> None:
    app = create_app(settings.model_copy(update={"admin_token": SecretStr("secret")}))
    right, wrong = {"X-Admin-Token": "secret"}, {"X-Admin-Token": "another"}
    document = app.openapi()
    requests: list[tuple[str, str, str, dict[str, str], Json, int]] = [
        ("get", VERIFY, "?wait_seconds=0", right, None, 202),
        ("get", VERIFY, "?wait_seconds=61", right, None, 422),
        ("get", VERIFY, "?audit_id=999", right, None, 404),
        ("get", VERIFY, "?wait_seconds=0&audit_id=1", right, None, 503),
        ("get", VERIFY, "", wrong, None, 401),
        ("get", BACKFILL, "", right, None, 404),
        ("post", f"{BACKFILL}/pause", "", right, None, 409),
        ("post", BACKFILL, "", right, {"rate": 0}, 422),
        ("post", BACKFILL, "", right, {"project_id": "unknown"}, 404),
        ("post", BACKFILL, "", right, {"rate": 10}, 202),
        ("post", BACKFILL, "", right, None, 409),
        ("get", BACKFILL, "", right, None, 200),
        ("post", f"{BACKFILL}/pause", "", right, None, 200),
        ("post", f"{BACKFILL}/resume", "", right, None, 200),
        ("post", f"{BACKFILL}/cancel", "", right, None, 200),
        ("get", VERIFY, "?audit_id=1", right, None, 200),
        ("get", PHASE, "", right, None, 200),
        ("post", f"{PHASE}/back", "", right, None, 409),
        ("post", f"{PHASE}/advance", "", right, None, 409),
        ("post", f"{PHASE}/advance", "", right, {"force": True}, 422),
        ("post", f"{PHASE}/advance", "", right, {"force": True, "reason": "rehearsed"}, 200),
        ("get", PHASE, "", right, None, 200),
        ("post", f"{PHASE}/back", "", right, {"epoch": 1}, 200),
        ("post", f"{PHASE}/back", "", wrong, None, 401),
    ]
    async with started(app) as client:
        for method, path, query, headers, body, status in requests:
            if status == HTTPStatus.SERVICE_UNAVAILABLE:
                await seeded.execute("UPDATE audit_runs SET requested_at = requested_at - interval '1 hour'")
            if status == HTTPStatus.OK and path == VERIFY:
                await seeded.execute(
                    "UPDATE audit_runs SET status = 'finished', verdict = 'drift', started_at = now(),"
                    " heartbeat_at = now(), finished_at = now()"
                )
            answer = await client.request(method, path + query, headers=headers, json=body)
            assert answer.status_code == status, (path, query, answer.text)
            described = document["paths"][path][method]["responses"][str(status)]
            schema = described["content"]["application/json"]["schema"]
            assert not list(violations(document, schema, answer.json(), f"{method} {path}"))
            assert set(described.get("headers", {})) <= {name.title() for name in answer.headers}
