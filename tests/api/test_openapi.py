"""The OpenAPI document: valid, its examples true, and true of the answers that are really sent."""

from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.openapi.models import OpenAPI

from tests.api.clients import ALL, OWNER, SEEDED, STRANGER, UNKNOWN
from tests.api.json_schema import violations
from tests.api.recording import Json

LISTED = "/projects/{project_id}/collections"
ONE = "/projects/{project_id}/collections/{collection_id}"
ERRORS = {"401", "403", "422", "500", "503"}


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


def test_each_operation_documents_its_errors(document: Json) -> None:
    statuses = {
        (path, method): set(operation["responses"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert statuses == {
        (LISTED, "get"): {"200"} | ERRORS,
        (LISTED, "post"): {"200"} | ERRORS,
        (ONE, "put"): {"200", "404"} | ERRORS,
        (ONE, "delete"): {"200", "404"} | ERRORS,
        (f"{ONE}/sync", "get"): {"200", "404"} | ERRORS,
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


def test_every_request_and_every_error_of_the_collections_has_an_example(document: Json) -> None:
    schemas = document["components"]["schemas"]
    for where, media_type in media_types(document):
        if "/collections" not in where:
            continue
        reference = media_type["schema"].get("$ref") or media_type["schema"]["items"]["$ref"]
        assert examples_of(media_type) or schemas[reference.rpartition("/")[2]].get("examples"), where


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
