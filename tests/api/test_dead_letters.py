"""Dead letters over HTTP: the same as the command, but for what events held."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from api.main import create_app
from shared.settings import Settings
from tests.api.clients import started
from tests.api.recording import NAMES
from tests.doorbell.place import names_of
from tests.draining import drain
from tests.drift import drift
from tests.worker.events import append_raw

LETTERS = "/admin/dead-letters"
SEEDED = NAMES["C_SEED"]
TOKEN = "admin"


@pytest.fixture
async def admin(settings: Settings, seeded: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    del seeded
    app = create_app(settings.model_copy(update={"admin_token": SecretStr(TOKEN)}))
    async with started(app) as client:
        client.headers["X-Admin-Token"] = TOKEN
        yield client


@pytest.fixture
async def letter(engine: AsyncEngine, seeded: asyncpg.Connection) -> int:
    return await dead(engine, seeded)


async def dead(engine: AsyncEngine, sql: asyncpg.Connection, collection_id: str = SEEDED) -> int:
    event_id = await append_raw(sql, collection_id, project_id=NAMES["P1"], created_at="a secret word")
    await drain(engine)
    return event_id


async def test_a_letter_is_shown_with_postgresqls_words_and_without_what_its_event_held(
    admin: httpx.AsyncClient, letter: int
) -> None:
    one = await admin.get(f"{LETTERS}/{letter}")
    assert one.status_code == 200
    assert (
        one.json().items()
        >= {
            "id": letter,
            "collection_id": SEEDED,
            "sqlstate": "22007",
            "error": "invalid datetime format",
            "attempts": 1,
            "state": "dead",
            "closed_at": None,
            "replay_of": None,
            "message": 'invalid input syntax for type timestamp with time zone: "a secret word"',
            "detail": None,
            "hint": None,
        }.items()
    )
    page = await admin.get(LETTERS)
    listed = {name: value for name, value in one.json().items() if name not in {"message", "detail", "hint"}}
    assert page.json() == {
        "total": 1, "counts": {"dead": 1}, "dead_letters": [listed], "next_after_id": None
    }  # fmt: skip
    assert "secret" not in page.text
    assert "raw" not in one.text  # what the event held beside that


async def test_letters_that_died_alike_are_a_group_that_is_closed_at_once(
    admin: httpx.AsyncClient, letter: int, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    alike = await dead(engine, seeded, "nowhere")
    await append_raw(seeded, "elsewhere", "collection.renamed")
    await drain(engine)
    found = (await admin.get(f"{LETTERS}/groups")).json()
    assert (found["total"], [group["letters"] for group in found["groups"]]) == (3, [2, 1])
    first = found["groups"][0]
    assert (first["like"], first["sqlstate"], first["died_again"]) == (letter, "22007", 0)
    assert first["oldest_at"] < first["newest_at"]
    listed = (await admin.get(LETTERS, params={"like": letter})).json()
    assert [one["id"] for one in listed["dead_letters"]] == [letter, alike]
    discarded = await admin.post(f"{LETTERS}/discard", json={"like": alike})
    assert discarded.json() == {
        "discarded": 2, "not_dead": [], "remaining": 0, "outcome": "2 dead letters are discarded.",
    }  # fmt: skip
    for action in ("replay", "discard"):
        answer = await admin.post(f"{LETTERS}/{action}", json={"like": 2**40})
        assert (answer.status_code, answer.json()) == (404, {"detail": "Dead letter not found"})


async def test_letters_are_listed_by_pages_and_conditions(
    admin: httpx.AsyncClient, letter: int, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    second = await dead(engine, seeded, "nowhere")
    assert (await admin.post(f"{LETTERS}/{letter}/discard")).status_code == 200

    async def found(**query: object) -> list[int]:
        answer = await admin.get(LETTERS, params={key: str(value) for key, value in query.items()})
        assert answer.status_code == 200, answer.text
        return [row["id"] for row in answer.json()["dead_letters"]]

    assert await found() == [second]
    assert await found(state="all") == [letter, second]
    assert await found(state="discarded") == [letter]
    assert await found(state="all", project_id=NAMES["P1"]) == [letter]
    assert await found(collection_id="nowhere", sqlstate="22007", source="api") == [second]
    assert await found(since="2999-01-01T00:00:00Z") == []
    first = await admin.get(LETTERS, params={"state": "all", "limit": 1})
    assert (first.json()["total"], first.json()["next_after_id"]) == (2, letter)
    assert await found(state="all", after_id=letter) == [second]
    for query in (
        {"state": "lost"},
        {"limit": 0},
        {"limit": 501},
        {"since": "2025-01-01"},
        {"sqlstate": "\0"},
    ):
        assert (await admin.get(LETTERS, params=query)).status_code == 422


async def test_a_replay_appends_the_present_state_and_rings(
    admin: httpx.AsyncClient, letter: int, engine: AsyncEngine, seeded: asyncpg.Connection, redis_url: str
) -> None:
    await drain(engine)
    await seeded.execute("UPDATE collections SET description = 'by hand' WHERE collection_id = $1", SEEDED)
    async with Redis.from_url(redis_url) as redis, redis.pubsub() as channel:
        await channel.subscribe(*(await names_of(seeded)).channels)
        replayed = await admin.post(f"{LETTERS}/{letter}/replay")
        heard = None
        while heard is None or heard["type"] != "message":
            heard = await channel.get_message(timeout=5)
    assert replayed.status_code == 200
    assert replayed.json()["state"] == "replayed"
    event_id = await seeded.fetchval("SELECT id FROM outbox_events WHERE lane = 1")
    assert replayed.json()["replayed_as"] == event_id
    await drain(engine)
    assert SEEDED not in await drift(seeded)

    again = await admin.post(f"{LETTERS}/{letter}/replay")
    assert (again.status_code, again.json()) == (
        409, {"detail": f"Dead letter {letter} is not dead any more: it is replayed."}
    )  # fmt: skip


async def test_what_cannot_be_replayed_stays_and_can_be_discarded(
    admin: httpx.AsyncClient, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    homeless = await dead(engine, seeded, "nowhere")
    refused = await admin.post(f"{LETTERS}/{homeless}/replay")
    assert refused.status_code == 409
    assert "there is nothing to replay" in refused.json()["detail"]
    discarded = await admin.post(f"{LETTERS}/{homeless}/discard")
    assert discarded.json()["state"] == "discarded"
    assert (await admin.post(f"{LETTERS}/{homeless}/discard")).status_code == 409
    assert await seeded.fetchval("SELECT count(*) FROM outbox_events") == 0


async def test_an_unknown_letter_is_404(admin: httpx.AsyncClient) -> None:
    for method, path in (("GET", "/7"), ("POST", "/7/replay"), ("POST", "/7/discard")):
        answer = await admin.request(method, LETTERS + path)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Dead letter not found"})
    for path in ("/0", f"/{2**63}", "/x"):
        assert (await admin.get(LETTERS + path)).status_code == 422


async def test_many_are_replayed_and_discarded_at_once(
    admin: httpx.AsyncClient, letter: int, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    homeless = await dead(engine, seeded, "nowhere")
    replayed = await admin.post(f"{LETTERS}/replay", json={"all": True})
    assert replayed.json() == {
        "replayed": 1, "events": 1, "no_collection": [homeless], "not_dead": [], "remaining": 1,
        "outcome": "1 dead letter is replayed; 1 stays, as its collection is gone.",
    }  # fmt: skip
    discarded = await admin.post(f"{LETTERS}/discard", json={"ids": [homeless, letter, 999]})
    assert discarded.json() == {
        "discarded": 1, "not_dead": [letter, 999], "remaining": 0,
        "outcome": "1 dead letter is discarded; 2 are not open any more.",
    }  # fmt: skip
    nothing = await admin.post(f"{LETTERS}/discard", json={"all": True, "source": "backfill"})
    assert nothing.json() == {
        "discarded": 0, "not_dead": [], "remaining": 0, "outcome": "0 dead letters are discarded.",
    }  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"all": False},
        {"ids": []},
        {"ids": [0]},
        {"ids": [1], "all": True},
        {"ids": [1], "source": "api"},
        {"ids": [1], "like": 1},
        {"like": 0},
        {"source": "api"},
        {"all": True, "sorce": "api"},
        {"ids": list(range(1, 502))},
    ],
    ids=lambda body: str(body)[:40],
)
async def test_a_choice_that_is_not_clear_closes_nothing(
    admin: httpx.AsyncClient, letter: int, seeded: asyncpg.Connection, body: object
) -> None:
    for action in ("replay", "discard"):
        assert (await admin.post(f"{LETTERS}/{action}", json=body)).status_code == 422
    assert await seeded.fetchval("SELECT state FROM outbox_dead_letters WHERE id = $1", letter) == "dead"
