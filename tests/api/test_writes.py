"""A write is one transaction: the row, the activity, the event, or nothing; and then the doorbell."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from api.main import create_app
from shared.redis.doorbell import Doorbell
from shared.settings import Settings
from tests.api.clients import ALL, NOT_LINKED, OWNER, P1, P2, SEEDED, STRANGER, UNKNOWN, create, started
from tests.api.recording import NAMES
from tests.doorbell.place import rung
from tests.draining import drain
from tests.processes import HANG_SECONDS
from tests.round_trips import counted

MINE = "the path of a collection of its own"
EVERYTHING = """
    SELECT (SELECT json_agg(c ORDER BY collection_id) FROM collections c)::text,
           (SELECT count(*) FROM activity_logs), (SELECT count(*) FROM outbox_events)
"""
FREEZE = """
    CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$;
    CREATE TRIGGER wait_here BEFORE INSERT ON activity_logs FOR EACH ROW EXECUTE FUNCTION wait_here();
"""
WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


@pytest.fixture
def pressed(client: httpx.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """What has one more member whenever the doorbell was pressed."""
    del client  # asked for so that the app is started
    doorbell: Doorbell = app.state.collection_sync.doorbell
    press, times = doorbell.press, list[None]()

    def count_and_press() -> None:
        times.append(None)
        press()

    monkeypatch.setattr(doorbell, "press", count_and_press)
    return times


async def until(sql: asyncpg.Connection, query: str, expected: object) -> None:
    """Wait until the query returns the value."""
    async with asyncio.timeout(HANG_SECONDS):
        while await sql.fetchval(query) != expected:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def frozen(sql: asyncpg.Connection) -> AsyncIterator[None]:
    """Stop every write between the change of its row and its activity row, for as long as the body runs."""
    await sql.execute(FREEZE)
    await sql.execute("SELECT pg_advisory_lock(1)")
    try:
        yield
    finally:
        await sql.execute("SELECT pg_advisory_unlock(1)")


async def test_a_request_that_writes_takes_one_round_trip_and_the_others_as_many_as_told(
    settings: Settings, seeded: asyncpg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del seeded
    monkeypatch.setattr(
        "shared.redis.deployment.FRESH_SECONDS", float("inf")
    )  # that is the doorbell's business
    by_mail = {"User-ID": NAMES["OWNER_EMAIL"]}
    requests: list[tuple[str, str, dict[str, str], object, int]] = [
        ("POST", ALL, OWNER, {"collection_name": "x"}, 1),
        ("PUT", SEEDED, OWNER, {"collection_name": "x", "color": "#000000"}, 1),
        ("PUT", SEEDED, OWNER, {"collection_name": "x"}, 1),
        ("DELETE", MINE, OWNER, None, 1),
        ("DELETE", MINE, OWNER, None, 1),
        ("POST", ALL, STRANGER, {"collection_name": "x"}, 1),
        ("PUT", SEEDED, STRANGER, {}, 1),
        ("PUT", SEEDED, OWNER, {"color": "red"}, 0),
        ("GET", ALL, OWNER, None, 1),
        ("GET", ALL, by_mail, None, 1),
        ("GET", f"{ALL}?limit=1&after={NAMES['C_SEED']}", OWNER, None, 1),
        ("GET", f"{SEEDED}/sync", OWNER, None, 2),
    ]
    async with counted(database_url) as trips:
        through = settings.model_copy(update={"database_url": SecretStr(trips.url)})
        app = create_app(through)
        async with started(app) as client:
            await app.state.collection_sync.doorbell.deployment.names()
            for is_warm in (False, True):  # at first each statement is prepared, on the pool's one connection
                mine = await create(client)
                trips.taken()
                for method, path, caller, body, expected in requests:
                    await client.request(method, mine if path == MINE else path, headers=caller, json=body)
                    taken = trips.taken()
                    assert not is_warm or taken == expected, (method, path, body, taken)


@pytest.mark.parametrize("table", ["activity_logs", "outbox_events"])
async def test_a_write_that_cannot_log_or_append_leaves_nothing_behind(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, table: str
) -> None:
    await seeded.execute(f"ALTER TABLE {table} ADD CONSTRAINT nothing CHECK (false) NOT VALID")
    before = await seeded.fetchrow(EVERYTHING)
    answers = [
        await client.post(ALL, headers=OWNER, json={"collection_name": "x"}),
        await client.put(SEEDED, headers=OWNER, json={"collection_name": "x"}),
        await client.put(SEEDED, headers=OWNER, json={}),
        await client.delete(SEEDED, headers=OWNER),
    ]
    assert {answer.status_code for answer in answers} == {500}
    assert await seeded.fetchrow(EVERYTHING) == before


async def test_a_refused_write_leaves_nothing_behind(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    before = await seeded.fetchrow(EVERYTHING)
    await client.post(ALL, headers=STRANGER, json={"collection_name": "x"})
    await client.put(UNKNOWN, headers=OWNER, json={"collection_name": "x"})
    await client.delete(UNKNOWN, headers=OWNER)
    assert await seeded.fetchrow(EVERYTHING) == before


async def test_a_put_that_changes_nothing_logs_and_appends_but_leaves_the_row(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, engine: AsyncEngine
) -> None:
    path = f"{ALL}/{NAMES['C_NOLINK']}"  # has no row in project_collections
    row = "SELECT * FROM collections WHERE collection_id = $1"
    before = await seeded.fetchrow(row, NAMES["C_NOLINK"])
    same = {"description": before["description"], "color": before["color"], "linked_question_ids": []}
    for body in ({}, same, dict.fromkeys(same)):
        assert (await client.put(path, headers=OWNER, json=body)).status_code == 200
    assert await seeded.fetchrow(row, NAMES["C_NOLINK"]) == before
    assert await seeded.fetchval("SELECT count(*) FROM activity_logs") == 3
    await drain(engine)
    assert await seeded.fetchval(
        "SELECT research_context FROM project_collections WHERE collection_id = $1", NAMES["C_NOLINK"]
    ) == before["description"]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "old", "new"),
    [
        ("auto_update", None, False),
        ("linked_question_ids", None, []),
        ("collection_purpose", None, ""),
        ("linked_hypothesis_ids", ["a", "b"], ["b", "a"]),
    ],
)
async def test_updated_at_moves_when_a_value_really_changed(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, field: str, old: object, new: object
) -> None:
    path = f"{ALL}/{NAMES['C_NULLS']}"
    stored = "NULL" if old is None else f"'{json.dumps(old)}'"
    await seeded.execute(f"UPDATE collections SET {field} = {stored}")  # noqa: S608 - literals of this test
    first = (await client.put(path, headers=OWNER, json={field: new})).json()
    second = (await client.put(path, headers=OWNER, json={field: new})).json()
    assert first["updated_at"] > first["created_at"]
    assert second["updated_at"] == first["updated_at"]


@pytest.mark.parametrize(
    ("stored", "given", "is_the_same"),
    [
        ("[]", [], True),
        (' [ "a" ,"b" ] ', ["a", "b"], True),
        ('["a"]', ["a", "a"], False),
        (r'["\u00e9\u0041\/\"\\"]', ['éA/"\\'], True),
        (r'["\ud83d\ude00"]', ["😀"], True),
        (r'["\\u0000"]', [r"\u0000"], True),
        (r'["\u0000"]', ["a"], False),
        (r'["\ud83d"]', ["a"], False),
        (r'["\ude00\ud83d"]', ["a"], False),
        ('["a", 1e999999]', ["a"], False),
        ('[["a"]]', ["a"], False),
        ('{"a": 1}', ["a"], False),
        ("null", [], False),
    ],
)
async def test_lists_are_compared_by_what_they_say_whatever_others_stored(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, stored: str, given: list[str], *, is_the_same: bool
) -> None:
    await seeded.execute("UPDATE collections SET linked_question_ids = $1", stored)
    row = "SELECT updated_at, linked_question_ids::text FROM collections WHERE collection_id = $1"
    before = await seeded.fetchrow(row, NAMES["C_SEED"])
    answer = await client.put(SEEDED, headers=OWNER, json={"linked_question_ids": given})
    assert answer.status_code == 200
    after = await seeded.fetchrow(row, NAMES["C_SEED"])
    assert (after == before) == is_the_same
    assert is_the_same or json.loads(after[1]) == given


async def test_a_change_that_waited_for_another_keeps_what_that_wrote(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, database_url: str
) -> None:
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        await other.execute("SELECT FROM collections FOR UPDATE")
        puts = asyncio.gather(
            client.put(SEEDED, headers=OWNER, json={"collection_name": "mine"}),
            client.put(NOT_LINKED, headers=OWNER, json={"description": "theirs"}),
        )
        await until(seeded, WAITING, 2)
        await other.execute("UPDATE collections SET description = 'theirs', updated_at = clock_timestamp()")
        written = await other.fetch("SELECT collection_id, updated_at FROM collections")
    await other.close()
    theirs: dict[str, datetime] = {row["collection_id"]: row["updated_at"] for row in written}
    changed, unchanged = (answer.json() for answer in await puts)
    assert (changed["collection_name"], changed["description"]) == ("mine", "theirs")
    assert datetime.fromisoformat(changed["updated_at"]) > theirs[NAMES["C_SEED"]]
    assert datetime.fromisoformat(unchanged["updated_at"]) == theirs[NAMES["C_NOLINK"]]
    payloads = await seeded.fetch("SELECT payload ->> 'research_context' FROM outbox_events")
    assert [row[0] for row in payloads] == ["theirs", "theirs"]


async def test_updated_at_is_later_than_that_of_a_writer_it_waited_for(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, database_url: str
) -> None:
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        await other.execute("SELECT FROM collections FOR UPDATE")
        put = asyncio.create_task(client.put(SEEDED, headers=OWNER, json={"collection_name": "later"}))
        await until(seeded, WAITING, 1)
        theirs: datetime = await other.fetchval(
            "UPDATE collections SET updated_at = clock_timestamp() WHERE collection_id = $1"
            " RETURNING updated_at",
            NAMES["C_SEED"],
        )
    await other.close()
    assert datetime.fromisoformat((await put).json()["updated_at"]) > theirs


async def test_the_version_is_drawn_only_when_the_row_is_locked(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, database_url: str
) -> None:
    drawn = "SELECT is_called FROM outbox_events_id_seq"
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        await other.execute("SELECT FROM collections FOR NO KEY UPDATE")
        writes = asyncio.gather(
            client.put(SEEDED, headers=OWNER, json={}), client.delete(SEEDED, headers=OWNER)
        )
        await until(seeded, WAITING, 2)
        assert not await seeded.fetchval(drawn)
    await other.close()
    await writes
    assert await seeded.fetchval(drawn)


async def test_the_event_holds_the_state_that_was_committed_with_it(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    path = await create(client, description="first")
    await client.put(path, headers=OWNER, json={"description": "second"})
    await client.delete(path, headers=OWNER)
    events = await seeded.fetch("SELECT * FROM outbox_events ORDER BY id")
    assert [event["event_type"] for event in events] == [
        "collection.created",
        "collection.updated",
        "collection.deleted",
    ]
    assert {(event["aggregate_id"], event["source"]) for event in events} == {
        (path.rpartition("/")[2], "api")
    }
    payloads = [json.loads(event["payload"]) for event in events]
    assert [payload["research_context"] for payload in payloads] == ["first", "second", "second"]
    assert {payload["project_id"] for payload in payloads} == {P1}


async def test_put_and_delete_of_one_row_at_once_leave_no_orphan_and_no_error(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, engine: AsyncEngine
) -> None:
    for number in range(25):
        path = await create(client)
        writes = [client.put(path, headers=OWNER, json={"description": str(n)}) for n in range(3)]
        removals = [client.delete(path, headers=OWNER) for _ in range(2)]
        answers = await asyncio.gather(*writes[: number % 4], *removals, *writes[number % 4 :])
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) <= {200, 404}
        assert sum(answer.json() == {"message": "Collection deleted successfully"} for answer in answers) == 1
        last = await seeded.fetchval(
            "SELECT event_type FROM outbox_events WHERE aggregate_id = $1 ORDER BY id DESC LIMIT 1",
            path.rpartition("/")[2],
        )
        assert last == "collection.deleted"
    await drain(engine)
    assert await seeded.fetchval(
        "SELECT count(*) FROM project_collections JOIN collections USING (collection_id)"
        " WHERE NOT collections.is_active"
    ) == 0  # fmt: skip


async def test_the_workers_foreign_key_check_does_not_wait_for_a_write(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    async with frozen(seeded):
        put = asyncio.create_task(client.put(SEEDED, headers=OWNER, json={"collection_name": "x"}))
        await until(seeded, WAITING, 1)
        await seeded.execute("SET lock_timeout = '1s'")
        await seeded.execute(
            "INSERT INTO project_collections (project_id, collection_id) VALUES ($1, $2)", P2, NAMES["C_SEED"]
        )
    assert (await put).status_code == 200


async def test_the_doorbell_rings_after_the_commit_and_not_before(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, redis_url: str, pressed: list[None]
) -> None:
    async with frozen(seeded):
        post = asyncio.create_task(client.post(ALL, headers=OWNER, json={"collection_name": "x"}))
        await until(seeded, WAITING, 1)
        assert not pressed
    assert (await post).status_code == 200
    assert pressed
    async with Redis.from_url(redis_url) as redis:
        await rung(redis)


async def test_a_request_that_changes_nothing_does_not_ring(
    client: httpx.AsyncClient, pressed: list[None]
) -> None:
    await client.get(ALL, headers=OWNER)
    await client.put(SEEDED, headers=STRANGER, json={})
    await client.delete(UNKNOWN, headers=OWNER)
    assert not pressed
    await create(client)
    assert pressed


async def test_each_write_is_one_log_line_without_the_users_text(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    client.headers["X-Request-ID"] = "its-own"
    with capture_logs() as lines:
        path = await create(client, "Confidential", description="Confidential")
        await client.put(path, headers=OWNER, json={"collection_name": "Confidential too"})
        await client.delete(path, headers=OWNER)
    ids = [row["id"] for row in await seeded.fetch("SELECT id FROM outbox_events ORDER BY id")]
    assert lines == [
        {
            "event": "collection_written",
            "log_level": "info",
            "action": f"collection_{verb}",
            "collection_id": path.rpartition("/")[2],
            "project_id": P1,
            "event_id": event_id,
            "event_type": f"collection.{verb}",
            "request_id": "its-own",
        }
        for event_id, verb in zip(ids, ["created", "updated", "deleted"], strict=True)
    ]
