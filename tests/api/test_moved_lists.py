"""Lists and pages with the reads moved: links among them, and turns between and within them."""

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from api import listing
from api.main import create_app
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, P1, P2
from tests.api.recording import Json
from tests.api.test_listing import INSERT, MANY, between, listed
from tests.phase.moving import TURN, move, move_back

FILL_TARGET = """
    INSERT INTO project_collections (project_id, collection_id, research_context, created_at, updated_at)
    SELECT project_id, collection_id, description, created_at, updated_at FROM collections
    ON CONFLICT DO NOTHING
"""
# Some of another project, with a time between those of the home's own, and a context of their own.
LINK = """
    WITH linked AS (
        UPDATE collections SET created_at = timestamptz '2025-01-01Z' + interval '1 ms'
        WHERE project_id = $2::varchar AND collection_id LIKE '%x' RETURNING collection_id
    )
    INSERT INTO project_collections (project_id, collection_id, research_context)
    SELECT $1::varchar, collection_id, 'linked' FROM linked
"""
LINKS = 9
TURN_BACK_AND_WRITE = (
    TURN.replace("$1", "'shadow_reads'") + "; UPDATE collections SET description = 'new'"  # noqa: S608
)


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """An API that compares no list, and so turns nothing back."""
    return create_app(settings.model_copy(update={"shadow_share": 0.0}))


@pytest.fixture
async def moved(seeded: asyncpg.Connection) -> asyncpg.Connection:
    """More collections than are made at once, a few of them linked, and the reads moved."""
    await seeded.execute(INSERT, P1, MANY, "")
    await seeded.execute(INSERT, P2, LINKS, "x")
    await seeded.execute(FILL_TARGET)
    await seeded.execute(LINK, P1, P2)
    await move(seeded)
    return seeded


@pytest.fixture
def by_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "AT_ONCE", listing.PIECE)


def linked(items: list[Json]) -> list[str]:
    return [item["collection_id"] for item in items if item["description"] == "linked"]


async def test_links_stand_in_the_list_by_their_age_with_a_context_of_their_own(
    client: httpx.AsyncClient, moved: asyncpg.Connection
) -> None:
    whole = await listed(client)
    assert len(linked(whole)) == LINKS
    order = await moved.fetchval(
        "SELECT array_agg(collection_id ORDER BY created_at, collection_id) FROM collections"
        " WHERE collection_id = ANY($1)",
        [item["collection_id"] for item in whole],
    )
    assert [item["collection_id"] for item in whole] == order
    await move_back(moved)
    assert await listed(client) == [item for item in whole if item["description"] != "linked"]


@pytest.mark.parametrize("limit", [7, 250, MANY + LINKS + 1])
async def test_pages_with_links_make_up_the_whole_list(
    client: httpx.AsyncClient, moved: asyncpg.Connection, by_cursor: None, limit: int
) -> None:
    del moved, by_cursor
    whole, pages, url = await listed(client), list[list[Json]](), f"{ALL}?limit={limit}"
    while url:
        answer = await client.get(url, headers=OWNER)
        assert answer.status_code == 200
        pages.append(answer.json())
        url = str(answer.url.join(answer.links["next"]["url"])) if answer.links else ""
    assert [item for page in pages for item in page] == whole


async def test_a_page_begins_behind_a_link_and_behind_none_once_reads_are_back(
    client: httpx.AsyncClient, moved: asyncpg.Connection
) -> None:
    whole = await listed(client)
    for link in linked(whole):
        behind = [item["collection_id"] for item in whole].index(link) + 1
        assert await listed(client, f"?after={link}") == whole[behind:]
    last = linked(whole)[-1]
    await moved.execute("UPDATE collections SET is_active = false WHERE collection_id = $1", last)
    assert (await client.get(f"{ALL}?after={last}", headers=OWNER)).status_code == 404
    await move_back(moved)
    link = linked(whole)[0]
    answer = await client.get(f"{ALL}?after={link}", headers=OWNER)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Collection not found"})


async def test_a_list_that_is_fetched_in_pieces_is_of_one_side_whatever_turns_meanwhile(
    client: httpx.AsyncClient, moved: asyncpg.Connection, by_cursor: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del by_cursor
    before = await listed(client)
    between(monkeypatch, TURN_BACK_AND_WRITE, moved)
    assert await listed(client) == before
    assert {item["description"] for item in await listed(client)} == {"new"}
