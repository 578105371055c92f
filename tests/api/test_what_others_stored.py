"""Rows that other writers left, and tables that they altered: no answer fails of what Python cannot hold."""

import asyncio
import sys
from typing import Any

import asyncpg
import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api.gate.echo import CUT, DEEPEST
from tests.api.clients import ALL, OWNER, SEEDED
from tests.api.recording import NAMES
from tests.draining import drain

# What Python has no time for, or only one beyond its own zone's; and how it is shown.
TIMES = {
    "10000-01-01": "10000-01-01T00:00:00+00:00",
    "294276-12-31": "294276-12-31T00:00:00+00:00",
    "0001-01-01 BC": "0001-01-01T00:00:00+00:00 BC",
    "0001-01-01 00:00+01": "0001-12-31T23:00:00+00:00 BC",
    "infinity": "infinity",
    "-infinity": "-infinity",
    "0001-01-01": "0001-01-01T00:00:00+00:00",
    "9999-12-31 23:59:59.999999": "9999-12-31T23:59:59.999999+00:00",
}
DIGITS = 5_000
DEEP = 3_000


def nested(levels: int) -> object:
    return [nested(levels - 1)] if levels else CUT


# From 3.14 on Python decodes what is nested as deep as that, and what is shown of it ends at DEEPEST.
DEEP_SHOWN = "[" * DEEP + "]" * DEEP if sys.version_info < (3, 14) else nested(DEEPEST)
# In SQL, and what is shown of it.
VALUES = {
    f"('[' || repeat('1', {DIGITS}) || ']')::json": ["1" * DIGITS],
    f"('[-' || repeat('1', {DIGITS}) || ']')::json": ["-" + "1" * DIGITS],
    "'[1e999, -1e999]'::json": ["Infinity", "-Infinity"],
    f"(repeat('[', {DEEP}) || repeat(']', {DEEP}))::json": DEEP_SHOWN,
    r"""'["\ud800", "\u0000"]'::json""": ["\ufffd", "\0"],
    "'[1.5, 1e2]'::json": [1.5, 100.0],
}


async def seeded_item(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get(ALL, headers=OWNER)
    assert answer.status_code == 200, answer.text
    (item,) = [item for item in answer.json() if item["collection_id"] == NAMES["C_SEED"]]
    return dict(item)


@pytest.mark.parametrize("time", TIMES)
async def test_whatever_time_others_stored_every_endpoint_answers_and_workers_apply_it(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, engine: AsyncEngine, time: str
) -> None:
    await seeded.execute("SET TIME ZONE 'UTC'")
    await seeded.execute("UPDATE collections SET created_at = $1::text::timestamptz", time)
    await seeded.execute("UPDATE collections SET updated_at = created_at")
    item = await seeded_item(client)
    assert (item["created_at"], item["updated_at"]) == (TIMES[time], TIMES[time])
    unchanged = await client.put(SEEDED, headers=OWNER, json={})
    assert unchanged.status_code == 200
    assert unchanged.json()["updated_at"] == TIMES[time]
    changed = await client.put(SEEDED, headers=OWNER, json={"description": "new"})
    assert changed.status_code == 200
    assert changed.json()["created_at"] == TIMES[time]
    assert (await client.get(f"{SEEDED}/sync", headers=OWNER)).json()["state"] == "pending"
    await drain(engine)
    shown = "SELECT created_at = (SELECT created_at FROM collections WHERE collection_id = $1)"
    assert await seeded.fetchval(
        f"{shown} FROM project_collections WHERE collection_id = $1 AND project_id = $2",
        NAMES["C_SEED"],
        NAMES["P1"],
    )
    assert (await client.delete(SEEDED, headers=OWNER)).status_code == 200


@pytest.mark.parametrize("column", ["linked_hypothesis_ids", "linked_question_ids"])
async def test_whatever_json_others_stored_the_list_shows_it_as_far_as_it_can_be_shown(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, column: str
) -> None:
    for stored, shown in VALUES.items():
        await seeded.execute(f"UPDATE collections SET {column} = {stored}")  # noqa: S608 - constants
        assert (await seeded_item(client))[column] == shown
        changed = await client.put(SEEDED, headers=OWNER, json={"description": "new"})
        assert changed.status_code == 200
        replaced = await client.put(SEEDED, headers=OWNER, json={column: ["q"]})
        assert replaced.status_code == 200
        assert (await seeded_item(client))[column] == ["q"]


async def test_a_column_that_is_altered_meanwhile_fails_no_request(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    requests = [
        ("GET", ALL, None),
        ("GET", f"{SEEDED}/sync", None),
        ("PUT", SEEDED, {"description": "new"}),
        ("POST", ALL, {"collection_name": "Mine"}),
    ]
    for kind in ("varchar(4000)", "text", "varchar(5000)"):
        # Enough requests that each connection has prepared its statements before the table is altered.
        for _ in range(2):
            answers = await asyncio.gather(
                *(
                    client.request(method, path, headers=OWNER, json=body)
                    for method, path, body in requests * 5
                )
            )
            assert {answer.status_code for answer in answers} == {200}
        for column in ("description", "icon", "collection_id"):
            await seeded.execute(f"ALTER TABLE collections ALTER COLUMN {column} TYPE {kind}")
