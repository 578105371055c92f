"""Replays what was recorded from the legacy service. Whoever sent these requests gets the same answers."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from api.context import collection_sync
from api.main import create_app
from api.routes import router
from shared.events import EventType, Source
from shared.outbox import append_states
from shared.settings import Settings
from tests.api.clients import started
from tests.api.recording import NAMES, STEPS, Json, differences, holds, is_uuid4, resolve
from tests.draining import drain
from tests.phase.moving import move
from tests.processes import environment, running_api

# The recording is a sample of a longer one. These are the writes that came before the step of that
# number, were left out, and show in its `db_after`.
LEFT_OUT: dict[int, dict[str, Any]] = {
    123: {"path": "{C_FULL}", "caller": "{OWNER}", "body": {"linked_hypothesis_ids": ["no-such-id"]}},
    147: {"path": "{C_MIN}", "caller": "{OWNER}", "body": {"description": ""}},
    160: {"path": "{C_FULL}", "caller": "{VIEWER}", "body": {"collection_name": "By viewer 2"}},
}
# The step that lists a project to which a collection is linked from another, and that collection.
LINKED = {17: "C_SHARED"}
JSON_COLUMNS = {
    "linked_hypothesis_ids",
    "linked_question_ids",
    "tags",
    "linked_project_question_ids",
    "linked_project_hypothesis_ids",
    "activity_metadata",
}


def as_json(row: asyncpg.Record, keys: list[str]) -> dict[str, Any]:
    """Show a row the way the recording does."""

    def value(key: str) -> Json:
        if isinstance(row[key], datetime):
            return row[key].isoformat()
        return json.loads(row[key]) if key in JSON_COLUMNS and row[key] is not None else row[key]

    return {key: value(key) for key in keys}


async def make_up(write: dict[str, Any] | None, client: httpx.AsyncClient, names: dict[str, str]) -> None:
    """Send a write that the recording left out."""
    if write is not None:
        path = resolve("/projects/{P1}/collections/" + write["path"], names)
        headers = {"User-ID": resolve(write["caller"], names)}
        answer = await client.put(path, headers=headers, json=write["body"])
        assert answer.status_code == 200, answer.text


def captured(step: dict[str, Any], answer: httpx.Response) -> dict[str, str]:
    """Return the names that the step gives to parts of its answer; each is a new id."""
    found = {
        name: answer.json().get(path.removeprefix("$.")) for name, path in step.get("capture", {}).items()
    }
    assert all(is_uuid4(value) for value in found.values()), answer.text
    return found


def request_of(step: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Build the request to the byte: a Content-Type only where one was recorded."""
    if "body" in step:
        content = json.dumps(resolve(step["body"], names)).encode()
    elif "raw_body_hex" in step:
        content = bytes.fromhex(step["raw_body_hex"])
    else:
        content = step.get("raw_body", "").encode()
    return {
        "method": step["method"],
        "url": resolve(step["path"], names),
        "headers": resolve(step["headers"], names),
        "content": content,
    }


def check_answer(
    step: dict[str, Any], answer: httpx.Response, names: dict[str, str], linked: str | None = None
) -> Iterator[str]:
    """Compare status, body, Allow and the relations between timestamps; `linked` is one more in the list."""
    expected = step["expect"]
    if answer.status_code != expected["status"]:
        yield f"status {answer.status_code} instead of {expected['status']}: {answer.text}"
        return
    if "allow" in expected and answer.headers.get("allow") != expected["allow"]:
        yield f"Allow: {answer.headers.get('allow')} instead of {expected['allow']}"
    body, wanted = answer.json(), resolve(expected["body"], names)
    if linked is not None:
        shown, body = body, [item for item in body if item["collection_id"] != linked]
        if len(shown) != len(body) + 1:
            yield f"{linked} is linked, and not shown"
    if isinstance(body, list):
        body, wanted = (sorted(part, key=lambda item: item["collection_id"]) for part in (body, wanted))
    yield from differences(wanted, body)
    for relation in expected.get("time_relations", []):
        if isinstance(relation, str):
            collection, text = body, relation
        else:
            wanted_id, text = resolve(relation["collection"], names), relation["rel"]
            (collection,) = [item for item in body if item["collection_id"] == wanted_id]
        if not holds(text, collection):
            yield f"not so: {text} in {collection}"


async def check_rows(step: dict[str, Any], sql: asyncpg.Connection, names: dict[str, str]) -> list[str]:
    """Compare the collection's row and all its rows in project_collections."""
    if "db_after" not in step:
        return []
    expected = resolve(step["db_after"], names)
    collection_id = expected["collections"]["collection_id"]
    legacy = await sql.fetchrow("SELECT * FROM collections WHERE collection_id = $1", collection_id)
    target = await sql.fetch(
        "SELECT * FROM project_collections WHERE collection_id = $1 ORDER BY project_id", collection_id
    )
    keys = list(expected["project_collections"][0]) if expected["project_collections"] else []
    wanted = sorted(expected["project_collections"], key=lambda row: row["project_id"])
    return [
        *differences(expected["collections"], as_json(legacy, list(expected["collections"])), "collections"),
        *differences(wanted, [as_json(row, keys) for row in target], "project_collections"),
    ]


class ActivityLog:
    """Tells the rows that a step added to the activity log."""

    def __init__(self, sql: asyncpg.Connection) -> None:
        self._sql = sql
        self._seen: list[str] = []

    async def new_rows(self) -> list[asyncpg.Record]:
        rows = await self._sql.fetch("SELECT * FROM activity_logs WHERE activity_id <> ALL ($1)", self._seen)
        self._seen += [row["activity_id"] for row in rows]
        return list(rows)

    async def check(self, step: dict[str, Any], names: dict[str, str]) -> list[str]:
        """Exactly one new row, as recorded; none where none was recorded."""
        rows = await self.new_rows()
        expected = resolve([step["activity_log_row"]] if "activity_log_row" in step else [], names)
        actual = [as_json(row, list(expected[0])) for row in rows] if expected else rows
        return list(differences(expected, actual, "activity_logs"))


@asynccontextmanager
async def in_our_app(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with started(create_app(settings)) as client:
        yield client


@asynccontextmanager
async def in_another_app(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with collection_sync(app, settings):
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(router)
    async with started(app) as client:
        yield client


@asynccontextmanager
async def in_a_process(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    env = environment(
        settings.database_url.get_secret_value(),
        settings.redis_url.get_secret_value(),
        READ_ONLY_MODE=str(settings.read_only_mode),
    )
    async with running_api(env) as (_, url), httpx.AsyncClient(base_url=url) as client:
        yield client


Serve = Callable[[Settings], AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.mark.parametrize(
    ("serve", "is_moved"),
    [(in_our_app, False), (in_another_app, False), (in_a_process, False), (in_our_app, True)],
)
async def test_every_recorded_request_gets_the_recorded_answer_and_leaves_the_recorded_rows(
    settings: Settings,
    seeded: asyncpg.Connection,
    engine: AsyncEngine,
    serve: Serve,
    is_moved: bool,  # noqa: FBT001
) -> None:
    """With the reads moved as well, once the rows that the recording began without are there."""
    if is_moved:
        async with engine.begin() as connection:
            ids = [
                row[0] for row in await connection.exec_driver_sql("SELECT collection_id FROM collections")
            ]
            await append_states(connection, ids, EventType.UPDATED, Source.BACKFILL)
        await drain(engine)
        await move(seeded)
    names = dict(NAMES)
    activity_log = ActivityLog(seeded)
    mismatches: list[str] = []
    read_only = settings.model_copy(update={"read_only_mode": True})
    async with serve(settings) as normal_client, serve(read_only) as read_only_client:
        clients = {"normal": normal_client, "read_only": read_only_client}
        for step in STEPS:
            await make_up(LEFT_OUT.get(step["n"]), normal_client, names)
            await activity_log.new_rows()
            answer = await clients[step["server"]].request(**request_of(step, names))
            names |= captured(step, answer)
            await drain(engine)
            linked_is_shown = is_moved and step["n"] in LINKED
            problems = [
                *check_answer(step, answer, names, names[LINKED[step["n"]]] if linked_is_shown else None),
                *await activity_log.check(step, names),
                *await check_rows(step, seeded, names),
            ]
            mismatches += [f"{step['n']} {step['name']}: {problem}" for problem in problems]
    assert not mismatches, "\n".join(mismatches)
    assert len(STEPS) == 67
