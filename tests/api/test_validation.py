"""What a body may hold, what the answer says otherwise, and that no body makes the answer fail."""

import itertools
import json
from typing import Any

import httpx
import pytest

from tests.api.clients import ALL, OWNER, SEEDED, STRANGER, UNKNOWN, create

JSON_TYPE = {"Content-Type": "application/json"}
TEXT_FIELDS = ["collection_name", "description", "color", "icon", "collection_purpose"]
LIST_FIELDS = ["linked_hypothesis_ids", "linked_question_ids"]
ENDPOINTS = [("POST", ALL), ("PUT", SEEDED)]

FIELD_RULES: list[tuple[str, object, str | None]] = [
    ("collection_name", "n" * 200, None),
    ("collection_name", "\U0001f9ec" * 200, None),
    ("collection_name", "n" * 201, "string_too_long"),
    ("description", "", None),
    ("description", "\U0001f9ec" * 1000, None),
    ("description", "d" * 1001, "string_too_long"),
    ("color", "#10b981", None),
    ("color", "", "string_pattern_mismatch"),
    ("color", "#10b981\n", "string_pattern_mismatch"),
    ("color", "#10b98", "string_pattern_mismatch"),
    ("icon", "i" * 50, None),
    ("icon", "i" * 51, "string_too_long"),
    ("collection_purpose", "p" * 5_000, None),
    ("auto_update", "yes", None),
    ("auto_update", 1, None),
    ("auto_update", "maybe", "bool_parsing"),
    ("auto_update", 2, "bool_parsing"),
    ("linked_question_ids", "q", "list_type"),
    ("linked_question_ids", [1], "string_type"),
    ("linked_question_ids", ["no such question", "no such question"], None),
]


WRONG = {
    "collection_name": "",
    "description": "d" * 1001,
    "color": "red",
    "icon": "i" * 51,
    "linked_hypothesis_ids": "none",
    "linked_question_ids": "none",
    "collection_purpose": 1,
    "auto_update": "maybe",
}  # in the legacy service's order of fields


async def send(client: httpx.AsyncClient, content: bytes) -> httpx.Response:
    return await client.post(ALL, headers=OWNER | JSON_TYPE, content=content)


def problems_of(answer: httpx.Response) -> list[tuple[str, Any]]:
    assert answer.status_code == 422, answer.text
    return [(problem["type"], problem["loc"]) for problem in answer.json()["detail"]]


async def test_wrong_fields_are_named_in_the_legacy_order_whatever_order_the_body_has(
    client: httpx.AsyncClient,
) -> None:
    for method, path in ENDPOINTS:
        for body in (WRONG, dict(reversed(WRONG.items()))):
            answer = await client.request(method, path, headers=OWNER, json=body)
            assert [loc for _, loc in problems_of(answer)] == [["body", field] for field in WRONG]


async def test_nul_and_lone_surrogates_are_invalid_in_every_text_field(client: httpx.AsyncClient) -> None:
    for field, text in itertools.product(TEXT_FIELDS, [rb"\u0000", rb"\ud800", rb"a\udfffb"]):
        answer = await send(client, b'{"collection_name": "x", "%s": "%s"}' % (field.encode(), text))
        assert [loc for _, loc in problems_of(answer)] == [["body", field]]


async def test_nul_and_lone_surrogates_are_invalid_in_list_items(client: httpx.AsyncClient) -> None:
    for (method, path), field, text in itertools.product(ENDPOINTS, LIST_FIELDS, [rb"\u0000", rb"\udc00"]):
        body = b'{"collection_name": "x", "%s": ["fine", "%s"]}' % (field.encode(), text)
        answer = await client.request(method, path, headers=OWNER | JSON_TYPE, content=body)
        assert problems_of(answer) == [("string_not_storable", ["body", field, 1])]


async def test_numbers_that_json_does_not_have_are_invalid_and_echoed_by_name(
    client: httpx.AsyncClient,
) -> None:
    fields = [*TEXT_FIELDS, *LIST_FIELDS, "auto_update"]
    for field, number in itertools.product(fields, ["NaN", "Infinity", "-Infinity"]):
        answer = await send(client, f'{{"collection_name": "x", "{field}": {number}}}'.encode())
        assert [loc for _, loc in problems_of(answer)] == [["body", field]]
        assert answer.json()["detail"][0]["input"] == number


async def test_numbers_that_json_does_not_have_are_ignored_in_unknown_fields(
    client: httpx.AsyncClient,
) -> None:
    assert (await send(client, b'{"collection_name": "x", "tags": [NaN]}')).status_code == 200


async def test_what_cannot_be_sent_back_is_replaced_in_the_echo(client: httpx.AsyncClient) -> None:
    answer = await send(client, rb'{"a": [NaN, 1e999, "\ud800", {"\udfff": -1e999}, 1.5, true, null]}')
    assert problems_of(answer) == [("missing", ["body", "collection_name"])]
    echoed = answer.json()["detail"][0]["input"]
    assert echoed == {"a": ["NaN", "Infinity", "\ufffd", {"\ufffd": "-Infinity"}, 1.5, True, None]}


async def test_bytes_of_another_content_type_are_echoed_as_text(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        ALL, headers=OWNER | {"Content-Type": "text/plain"}, content=b"caf\xc3\xa9 \xff"
    )
    assert problems_of(answer) == [("model_attributes_type", ["body"])]
    assert answer.json()["detail"][0]["input"] == "café \ufffd"


@pytest.mark.parametrize("depth", [40, 300, 900, 5_000, 200_000])
async def test_nesting_of_any_depth_is_the_clients_fault(client: httpx.AsyncClient, depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    objects = b'{"a":' * depth + b"1" + b"}" * depth
    for body in (nested, b'{"collection_name": %s}' % nested, b'{"b": %s}' % objects, b"[" * depth):
        assert (await send(client, body)).status_code in {400, 413, 422}


async def test_the_echo_is_exact_at_every_depth_that_a_client_would_send(client: httpx.AsyncClient) -> None:
    nested = "[" * 40 + "]" * 40
    answer = await send(client, f'{{"collection_name": {nested}}}'.encode())
    assert answer.json()["detail"][0]["input"] == json.loads(nested)


async def test_a_body_that_is_no_json_object_is_the_clients_fault(client: httpx.AsyncClient) -> None:
    for body, status in [
        (b'{"collection_name": "\xff"}', 400),
        (b'{"collection_name": ' + b"9" * 5_000 + b"}", 400),
        (b'{"collection_name": ' + b"9" * 4_000 + b"}", 422),
        (b'{"collection_name": "x"', 422),
        (b'{"collection_name": "\xed\xa0\x80"}', 422),
        (b'"text"', 422),
        (b"null", 422),
    ]:
        assert (await send(client, body)).status_code == status, body[:40]


async def test_fields_have_the_legacy_limits(client: httpx.AsyncClient) -> None:
    for (method, path), (field, value, problem) in itertools.product(ENDPOINTS, FIELD_RULES):
        body = {"collection_name": "x"} | {field: value}
        answer = await client.request(method, path, headers=OWNER, json=body)
        if problem is None:
            assert answer.status_code == 200, (method, field, value)
        else:
            assert [kind for kind, _ in problems_of(answer)] == [problem], (method, field, value)


async def test_every_invalid_field_is_named(client: httpx.AsyncClient) -> None:
    answer = await client.put(SEEDED, headers=OWNER, json={"color": "red", "icon": 1, "auto_update": "?"})
    fields = [loc[1] for _, loc in problems_of(answer)]
    assert sorted(fields) == ["auto_update", "color", "icon"]


async def test_linked_ids_are_stored_as_given(client: httpx.AsyncClient) -> None:
    ids = ["b", "a", "b", "Ünï", ""]
    path = await create(client, linked_question_ids=ids, linked_hypothesis_ids=ids[:1])
    listed = (await client.get(ALL, headers=OWNER)).json()
    (mine,) = [item for item in listed if path.endswith(item["collection_id"])]
    assert (mine["linked_question_ids"], mine["linked_hypothesis_ids"]) == (ids, ["b"])


async def test_json_without_a_content_type_is_accepted_on_put_too(client: httpx.AsyncClient) -> None:
    answer = await client.put(SEEDED, headers=OWNER, content=b'{"collection_name": "no content type"}')
    assert answer.json()["collection_name"] == "no content type"


async def test_the_body_is_judged_before_access_and_access_before_the_row(
    client: httpx.AsyncClient,
) -> None:
    for path in (SEEDED, UNKNOWN):
        assert (await client.put(path, headers=STRANGER, json={"collection_name": ""})).status_code == 422
        assert (await client.put(path, headers=STRANGER, json={})).status_code == 403
        assert (await client.delete(path, headers=STRANGER)).status_code == 403
    assert (await client.put(UNKNOWN, headers=OWNER, json={})).status_code == 404
    assert (await client.delete(UNKNOWN, headers=OWNER)).status_code == 404


@pytest.mark.parametrize(
    ("with_body", "without_body", "path"),
    [("POST", "GET", "/projects/a%00b/collections"), ("PUT", "DELETE", f"{ALL}/a%00b")],
)
async def test_a_nul_in_the_path_is_denied(
    client: httpx.AsyncClient, with_body: str, without_body: str, path: str
) -> None:
    fine, invalid = {"collection_name": "x"}, {"collection_name": ""}
    answer = await client.request(with_body, path, headers=OWNER, json=fine)
    assert (answer.status_code, answer.json()) == (403, {"detail": "Access denied"})
    assert (await client.request(without_body, path, headers=OWNER)).status_code == 403
    assert (await client.request(with_body, path, headers=OWNER, json=invalid)).status_code == 422


async def test_a_list_of_wrong_items_is_answered_with_the_first_hundred_only(
    client: httpx.AsyncClient,
) -> None:
    for wrong, problem in ((1, "string_type"), ("\0", "string_not_storable")):
        for count, named in ((99, 99), (100, 100), (101, 100), (10_000, 100)):
            items = ["fine", *[wrong] * count]
            body = {"collection_name": "x", "linked_hypothesis_ids": items, "linked_question_ids": items}
            problems = problems_of(await client.post(ALL, headers=OWNER, json=body))
            expected = [
                (problem, ["body", field, index + 1]) for field in LIST_FIELDS for index in range(named)
            ]
            assert problems == expected, (wrong, count)
