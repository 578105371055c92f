"""A list of any length: whole, on one snapshot, and made in pieces that hold up nobody else."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message
from structlog.testing import capture_logs

from api import listing
from api.gate.long_lists import LongLists
from tests.api.clients import ALL, OWNER, P1, P2, SEEDED, STRANGER
from tests.api.recording import NAMES, Json

MANY = 3 * listing.PIECE + 7  # pieces, of which the last is not full
STRANGE = "1 ä/?&#%\u2028"
INSERT = """
    INSERT INTO collections (
        collection_id, project_id, collection_name, description, created_by, is_active, created_at,
        linked_question_ids
    )
    SELECT n || $3, $1::varchar, '"' || n || '" \u2028ä', CASE WHEN n % 2 = 0 THEN 'text' || chr(10) END,
        (SELECT owner_user_id FROM projects WHERE project_id = $1::varchar), true,
        CASE WHEN n % 5 = 0 THEN NULL WHEN n % 5 = 1 THEN 'infinity'::timestamptz
            WHEN n % 5 = 2 THEN '294276-01-01' ELSE timestamptz '2025-01-01Z' + n / 100 * interval '1 ms' END,
        CASE WHEN n % 3 = 0 THEN '["a", 1e999, "\\ud800"]'::json END
    FROM generate_series(1, $2::integer) AS n
"""


@pytest.fixture
async def many(seeded: asyncpg.Connection) -> asyncpg.Connection:
    """The seed, and more collections than are made at once; some share a time, or have none."""
    await seeded.execute(INSERT, P1, MANY, "")
    return seeded


@pytest.fixture
def by_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let these be more than are fetched at once."""
    monkeypatch.setattr(listing, "AT_ONCE", listing.PIECE)


async def listed(client: httpx.AsyncClient, query: str = "") -> list[Json]:
    answer = await client.get(ALL + query, headers=OWNER)
    assert answer.status_code == 200, answer.text
    items: list[Json] = answer.json()
    return items


def between(monkeypatch: pytest.MonkeyPatch, statement: str, sql: asyncpg.Connection) -> None:
    """Carry out the statement when the first piece of a list has been fetched."""
    turn, is_over = LongLists.turn, asyncio.Event()

    @asynccontextmanager
    async def turn_later(self: LongLists) -> AsyncIterator[None]:
        if not is_over.is_set():
            is_over.set()
            await sql.execute(statement)
        async with turn(self):
            yield

    monkeypatch.setattr(LongLists, "turn", turn_later)


async def test_in_however_many_pieces_it_is_fetched_and_made_the_bytes_are_the_same(
    client: httpx.AsyncClient, many: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    del many
    bodies = set()
    for at_once, piece in [(2_000, 2_000), (2_000, 250), (2_000, 1), (250, 250), (1, 1)]:
        monkeypatch.setattr(listing, "AT_ONCE", at_once)
        monkeypatch.setattr(listing, "PIECE", piece)
        monkeypatch.setattr(listing, "FETCH", f"FETCH {piece} FROM listed")
        answer = await client.get(ALL, headers=OWNER)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["content-length"] == str(len(answer.content))
        assert "link" not in answer.headers
        bodies.add(answer.content)
    (body,) = bodies
    assert body == json.dumps(json.loads(body), ensure_ascii=False, separators=(",", ":")).encode()
    assert len(json.loads(body)) > MANY


async def test_head_has_the_length_of_the_list_and_none_of_it(
    client: httpx.AsyncClient, many: asyncpg.Connection, by_cursor: None
) -> None:
    del many, by_cursor
    whole, head = await client.get(ALL, headers=OWNER), await client.head(ALL, headers=OWNER)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))


async def test_a_list_of_none_is_an_empty_list(client: httpx.AsyncClient, seeded: asyncpg.Connection) -> None:
    await seeded.execute("UPDATE collections SET is_active = false")
    assert (await client.get(ALL, headers=OWNER)).content == b"[]"


@pytest.mark.parametrize("at_once", [listing.PIECE, listing.AT_ONCE])
async def test_of_however_many_lists_one_piece_is_made_in_each_round_of_the_loop(
    client: httpx.AsyncClient, many: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    del many
    monkeypatch.setattr(listing, "AT_ONCE", at_once)
    add, rounds, made = listing.Listing.add, 0, list[tuple[int, int]]()

    def add_noted(self: listing.Listing, rows: list[asyncpg.Record]) -> None:
        made.append((rounds, len(rows)))
        add(self, rows)

    async def count_rounds() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(listing.Listing, "add", add_noted)
    counting = asyncio.create_task(count_rounds())
    lists = await asyncio.gather(*(listed(client) for _ in range(4)))
    counting.cancel()
    with suppress(asyncio.CancelledError):
        await counting
    assert sum(rows for _, rows in made) == sum(map(len, lists))
    assert max(rows for _, rows in made) <= 100
    assert len({number for number, _ in made}) == len(made) >= 16


async def test_a_list_that_is_fetched_in_pieces_shows_one_moment(
    client: httpx.AsyncClient, many: asyncpg.Connection, by_cursor: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del by_cursor
    before = await listed(client)
    change = "UPDATE collections SET is_active = collection_id > '5', created_at = now(), description = 'new'"
    between(monkeypatch, change, many)
    assert await listed(client) == before
    assert len(await listed(client)) < len(before)


async def test_a_list_whose_connection_is_lost_midway_is_answered_with_503(
    client: httpx.AsyncClient, many: asyncpg.Connection, by_cursor: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del by_cursor
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'"
    between(monkeypatch, end, many)
    answer = await client.get(ALL, headers=OWNER)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert len(await listed(client)) > MANY


async def test_who_loses_access_before_the_first_piece_gets_no_list(
    client: httpx.AsyncClient, many: asyncpg.Connection, by_cursor: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del by_cursor
    fetch = listing._fetch_in_pieces  # noqa: SLF001

    async def fetch_later(*arguments: Any) -> None:  # noqa: ANN401 - its own
        await many.execute(
            "UPDATE projects SET owner_user_id = $2 WHERE project_id = $1", P1, STRANGER["User-ID"]
        )
        await fetch(*arguments)

    monkeypatch.setattr(listing, "_fetch_in_pieces", fetch_later)
    assert (await client.get(ALL, headers=OWNER)).status_code == 403


async def test_a_list_that_takes_too_long_is_given_up_and_its_connection_given_back(
    client: httpx.AsyncClient,
    app: FastAPI,
    many: asyncpg.Connection,
    by_cursor: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del by_cursor
    monkeypatch.setattr(listing, "LIST_SECONDS", 0.2)
    between(monkeypatch, "SELECT pg_sleep(0.5)", many)
    assert (await client.get(ALL, headers=OWNER)).status_code == 503
    assert app.state.collection_sync.engine.pool.checkedout() == 0
    monkeypatch.undo()
    assert len(await listed(client)) > MANY


async def test_a_client_that_does_not_read_holds_no_connection(
    client: httpx.AsyncClient, app: FastAPI, many: asyncpg.Connection, by_cursor: None
) -> None:
    """Ask over ASGI itself, as a client whose socket is full after the first bytes."""
    del client, many, by_cursor
    reads, is_full, body = asyncio.Event(), asyncio.Event(), bytearray()
    scope = {
        "type": "http", "method": "GET", "path": ALL, "raw_path": ALL.encode(), "query_string": b"",
        "headers": [(b"user-id", OWNER["User-ID"].encode())], "http_version": "1.1", "scheme": "http",
    }  # fmt: skip

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if body:
            is_full.set()
            await reads.wait()
        body.extend(message.get("body", b""))

    asking = asyncio.create_task(app(scope, receive, send))
    await is_full.wait()
    state = app.state.collection_sync
    assert state.engine.pool.checkedout() == 0
    async with asyncio.timeout(1):
        for _ in range(100):  # places are free too
            async with state.bulkheads.reads.place():
                pass
    reads.set()
    await asking
    assert len(json.loads(body)) > MANY


@pytest.mark.parametrize("limit", [1, 250, 300, MANY + 1, 10_000])
async def test_pages_make_up_the_whole_list(
    client: httpx.AsyncClient, many: asyncpg.Connection, by_cursor: None, limit: int
) -> None:
    del by_cursor
    await many.execute("DELETE FROM collections WHERE length(collection_id) = 3") if limit == 1 else None
    whole, pages, url = await listed(client), list[list[Json]](), f"{ALL}?limit={limit}"
    while url:
        answer = await client.get(url, headers=OWNER)
        pages.append(answer.json())
        url = str(answer.url.join(answer.links["next"]["url"])) if answer.links else ""
    assert [item for page in pages for item in page] == whole
    assert {len(page) for page in pages[:-1]} <= {limit}
    assert 0 < len(pages[-1]) <= limit


async def test_a_page_begins_behind_a_collection_whatever_its_id_and_what_became_of_it(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    await seeded.execute(INSERT, P1, 5, STRANGE[1:])
    whole = await listed(client)
    strange = next(number for number, item in enumerate(whole) if item["collection_id"] == STRANGE)
    first = await client.get(f"{ALL}?limit={strange + 1}", headers=OWNER)
    rest = await client.get(str(first.url.join(first.links["next"]["url"])), headers=OWNER)
    assert first.json() + rest.json() == whole
    await client.delete(SEEDED, headers=OWNER)
    seed = next(number for number, item in enumerate(whole) if item["collection_id"] == NAMES["C_SEED"])
    assert await listed(client, f"?after={NAMES['C_SEED']}") == whole[seed + 1 :]
    assert await listed(client, f"?after={quote(whole[-1]['collection_id'])}") == []


async def test_behind_what_the_project_never_had_there_is_no_page(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    elsewhere = await seeded.fetchval("SELECT collection_id FROM collections WHERE project_id = $1", P2)
    for after in ("unknown", elsewhere, ""):
        answer = await client.get(f"{ALL}?after={after}", headers=OWNER)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Collection not found"})
    assert (await client.get(f"{ALL}?after=%00", headers=OWNER)).status_code == 403


@pytest.mark.parametrize("limit", ["0", "-1", "10001", "x", ""])
async def test_a_limit_that_is_none_is_refused(client: httpx.AsyncClient, limit: str) -> None:
    answer = await client.get(f"{ALL}?limit={limit}", headers=OWNER)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", "limit"]


async def test_a_very_long_list_is_logged_once_in_a_while(
    client: httpx.AsyncClient, many: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    del many
    monkeypatch.setattr("api.gate.long_lists.LONG", MANY)
    with capture_logs() as lines:
        await listed(client, f"?limit={MANY}")
        lists = [await listed(client) for _ in range(2)]
    assert [(line["event"], line["project_id"], line["collections"]) for line in lines] == [
        ("long_list", P1, len(lists[0]))
    ]
