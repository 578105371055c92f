"""A POST with an Idempotency-Key, however often and wherever it is sent, creates one collection."""

import asyncio
import json
from collections.abc import Mapping

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from structlog.testing import capture_logs

from api.main import create_app
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, P2, P3, SEEDED, STRANGER, started
from tests.api.recording import NAMES
from tests.api.test_plans import SESSIONS
from tests.api.test_writes import WAITING, frozen, until
from tests.engines import COUNTS_AT_ONCE
from tests.processes import environment, running_api
from tests.round_trips import counted

BODY = {"collection_name": "Mine", "description": "ä\u2028\U0001f600", "linked_question_ids": ["q"]}
KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
MADE = """
    SELECT (SELECT count(*) FROM collections WHERE collection_name = 'Mine') AS collections,
        (SELECT count(*) FROM activity_logs) AS activities, (SELECT count(*) FROM outbox_events) AS events,
        (SELECT count(*) FROM idempotency_keys) AS keys
"""
ONCE, NEVER = (1, 1, 1, 1), (0, 0, 0, 0)


def keyed(key: str = KEY, caller: Mapping[str, str] = OWNER) -> dict[str, str]:
    return {**caller, "Idempotency-Key": key}


async def post(client: httpx.AsyncClient, key: str = KEY, path: str = ALL, **more: object) -> httpx.Response:
    return await client.post(path, headers=keyed(key), json={**BODY, **more})


async def made(sql: asyncpg.Connection) -> tuple[int, ...]:
    return tuple(await sql.fetchrow(MADE))


async def test_eight_at_once_and_again_after_a_restart_make_one_collection_and_get_one_answer(
    settings: Settings, seeded: asyncpg.Connection
) -> None:
    env = environment(settings.database_url.get_secret_value(), settings.redis_url.get_secret_value())
    answers = []
    for _ in range(2):
        async with running_api(env) as (_, url), httpx.AsyncClient(base_url=url) as client:
            answers += await asyncio.gather(*(post(client) for _ in range(8)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert await made(seeded) == ONCE
    assert answers[0].json()["description"] == BODY["description"]


async def test_of_two_at_once_the_second_waits_for_the_first_and_gets_its_answer(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    async with frozen(seeded):
        both = [asyncio.create_task(post(client)) for _ in range(2)]
        await until(seeded, WAITING, 2)
    first, second = await asyncio.gather(*both)
    assert (first.status_code, first.content) == (second.status_code, second.content)
    assert await made(seeded) == ONCE


async def test_when_the_first_of_two_is_rolled_back_the_second_creates_the_collection(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    async with frozen(seeded):
        both = [asyncio.create_task(post(client)) for _ in range(2)]
        await until(seeded, WAITING, 2)
        await seeded.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database() LIMIT 1"
        )
        await until(seeded, WAITING, 1)
    assert sorted([answer.status_code for answer in await asyncio.gather(*both)]) == [200, 503]
    assert await made(seeded) == ONCE
    assert (await post(client)).status_code == 200
    assert await made(seeded) == ONCE


async def test_it_is_one_round_trip_the_first_time_and_each_time_after(
    settings: Settings, seeded: asyncpg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del seeded
    monkeypatch.setattr("shared.redis.deployment.FRESH_SECONDS", float("inf"))
    async with counted(database_url) as trips:
        through = Settings(database_url=SecretStr(trips.url), redis_url=settings.redis_url)
        app = create_app(through)
        async with started(app) as client:
            await app.state.collection_sync.doorbell.deployment.names()
            await post(client, "to prepare the statement")
            for key in ("new", "new", "newer"):
                trips.taken()
                assert (await post(client, key)).status_code == 200
                assert trips.taken() == 1


async def test_the_answer_stays_the_first_one_whatever_became_of_the_collection(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    first = await post(client)
    path = f"{ALL}/{first.json()['collection_id']}"
    await client.put(path, headers=OWNER, json={"collection_name": "changed"})
    assert (await post(client)).content == first.content
    await client.delete(path, headers=OWNER)
    assert (await post(client)).content == first.content
    assert await seeded.fetchval("SELECT count(*) FROM outbox_events") == 3


async def test_a_time_that_python_has_not_is_answered_again_as_it_was(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    await seeded.execute("ALTER TABLE collections ALTER created_at SET DEFAULT '294276-12-31'")
    first = await post(client)
    assert first.json()["created_at"].startswith("294276")
    assert (await post(client)).content == first.content


async def test_another_request_with_the_key_is_refused_and_the_same_in_other_words_is_not(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    first = await post(client)
    for other in ({"collection_name": "Other"}, {"color": "#000000"}, {"linked_question_ids": ["q", "q"]}):
        refused = await post(client, **other)
        assert refused.status_code == 422
        assert refused.json() == {
            "detail": "This Idempotency-Key belongs to a request with other values. Send a new one."
        }
    same = {"unknown": 1, **dict(reversed(BODY.items())), "color": None, "auto_update": False}
    again = await client.post(ALL, headers=keyed(), content=json.dumps(same, indent=4))
    assert again.content == first.content
    assert await made(seeded) == ONCE


async def test_keys_of_other_users_and_of_other_projects_are_others(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    await seeded.execute("UPDATE projects SET owner_user_id = $1 WHERE project_id = $2", NAMES["OWNER"], P2)
    editor = {"User-ID": NAMES["EDITOR"]}
    answers = [
        await post(client),
        await post(client, path=f"/projects/{P2}/collections"),
        await client.post(ALL, headers=keyed(caller=editor), json=BODY),
    ]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["collection_id"] for answer in answers}) == 3
    assert await made(seeded) == (3, 3, 3, 3)


async def test_what_was_refused_keeps_no_key(settings: Settings, seeded: asyncpg.Connection) -> None:
    async with started(create_app(settings)) as client:
        assert (await client.post(ALL, headers=keyed(caller=STRANGER), json=BODY)).status_code == 403
        assert (await post(client, path=f"/projects/{P3}x/collections")).status_code == 403
        assert (await post(client, color="red")).status_code == 422
    async with started(create_app(settings.model_copy(update={"read_only_mode": True}))) as client:
        assert (await post(client)).status_code == 403
    assert await made(seeded) == NEVER


async def test_who_lost_access_is_not_answered_any_more(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    await post(client)
    await seeded.execute("UPDATE projects SET owner_user_id = $1", NAMES["STRANGER"])
    assert (await post(client)).status_code == 403


@pytest.mark.parametrize("table", ["activity_logs", "outbox_events", "idempotency_keys"])
async def test_a_creation_whose_key_cannot_be_kept_leaves_nothing_and_is_made_when_it_can(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, table: str
) -> None:
    await seeded.execute(f"ALTER TABLE {table} ADD CONSTRAINT nothing CHECK (false) NOT VALID")
    assert (await post(client)).status_code == 500
    assert await made(seeded) == NEVER
    await seeded.execute(f"ALTER TABLE {table} DROP CONSTRAINT nothing")
    assert (await post(client)).status_code == 200
    assert await made(seeded) == ONCE


@pytest.mark.parametrize("key", ["k", "x" * 255, '"quoted, as the draft has it"', "!~ a"])
async def test_a_key_is_taken_as_it_is(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, key: str
) -> None:
    assert (await post(client, key)).status_code == 200
    assert await seeded.fetchval("SELECT key FROM idempotency_keys") == key


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"\xe4", b"a\tb"])
async def test_what_is_no_key_is_refused(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, key: bytes
) -> None:
    headers = [(b"User-ID", OWNER["User-ID"].encode()), (b"Idempotency-Key", key)]
    refused = await client.post(ALL, headers=headers, json=BODY)
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["header", "Idempotency-Key"]
    assert await made(seeded) == NEVER


async def test_two_keys_are_none(client: httpx.AsyncClient, seeded: asyncpg.Connection) -> None:
    headers = [*OWNER.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    refused = await client.post(ALL, headers=headers, json=BODY)
    assert (refused.status_code, refused.json()) == (400, {"detail": "More than one Idempotency-Key"})
    assert await made(seeded) == NEVER


async def test_other_methods_take_no_notice_of_a_key(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    for name in ("a", "b"):
        changed = await client.put(SEEDED, headers=keyed(), json={"collection_name": name})
        assert changed.json()["collection_name"] == name
    assert await seeded.fetchval("SELECT count(*) FROM idempotency_keys") == 0


async def test_a_repeat_has_a_line_of_its_own_and_rings_no_bell(
    client: httpx.AsyncClient, app: FastAPI, seeded: asyncpg.Connection
) -> None:
    del seeded
    with capture_logs() as lines:
        first = await post(client)
        await post(client)
    written, repeated = lines
    assert (written["event"], repeated["event"]) == ("collection_written", "collection_repeated")
    assert repeated["collection_id"] == written["collection_id"] == first.json()["collection_id"]
    assert app.state.collection_sync.appended.total() == 1


@COUNTS_AT_ONCE
async def test_a_plan_that_was_made_while_there_were_no_keys_reads_one_when_there_are_many(
    settings: Settings, seeded: asyncpg.Connection
) -> None:
    async with started(create_app(settings)) as client:
        for number in range(10):
            await post(client, f"at first {number}")
        await seeded.execute(
            "INSERT INTO idempotency_keys (user_id, project_id, key, fingerprint, answer)"
            " SELECT 'u' || n % 10, 'p', n::text, '', '{}' FROM generate_series(1, 20000) n"
        )
        for _ in range(2):
            await post(client, "then")
    read = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'idempotency_keys'"
    await until(seeded, SESSIONS, 0)  # by then their counts have arrived
    assert await seeded.fetchval(read) == 0
