"""The list: complete, in a stable order, never stale, and readable whatever other writers stored."""

import asyncio

import asyncpg
import httpx

from api.main import create_app
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, create, started
from tests.api.recording import NAMES


async def listed(client: httpx.AsyncClient) -> list[dict[str, object]]:
    answer = await client.get(ALL, headers=OWNER)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, object]] = answer.json()
    return items


async def test_nulls_of_old_rows_are_shown_as_their_defaults(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    await seeded.execute(
        "UPDATE collections SET created_at = NULL, updated_at = NULL, collection_purpose = '' "
        "WHERE collection_id = $1",
        NAMES["C_NULLS"],
    )
    last = (await listed(client))[-1]  # no created_at sorts last
    assert last["collection_id"] == NAMES["C_NULLS"]
    assert (last["created_at"], last["updated_at"], last["sort_order"]) == (None, None, None)
    assert (last["linked_hypothesis_ids"], last["linked_question_ids"]) == ([], [])
    assert (last["collection_purpose"], last["auto_update"]) == ("general", False)


async def test_rows_whose_is_active_is_null_are_inactive(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    await seeded.execute("UPDATE collections SET is_active = NULL WHERE collection_id = $1", NAMES["C_SEED"])
    assert NAMES["C_SEED"] not in {item["collection_id"] for item in await listed(client)}
    assert (await client.put(f"{ALL}/{NAMES['C_SEED']}", headers=OWNER, json={})).status_code == 404


async def test_the_order_is_that_of_creation_and_does_not_change_with_updates(
    client: httpx.AsyncClient,
) -> None:
    paths = [await create(client, name) for name in "cab"]
    before = [item["collection_id"] for item in await listed(client)]
    await client.put(paths[0], headers=OWNER, json={"collection_name": "z"})
    assert [item["collection_id"] for item in await listed(client)] == before
    assert before[-3:] == [path.rpartition("/")[2] for path in paths]


async def test_whatever_json_others_stored_the_list_can_be_read(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    for stored in ['{"a": 1}', '"text"', "null", "[1, null]", r'["\ud800", "\u0000"]', "0", "1e999"]:
        await seeded.execute("UPDATE collections SET linked_question_ids = $1", stored)
        await listed(client)
    await seeded.execute("UPDATE collections SET linked_question_ids = '[1, \"a\"]'")
    assert (await listed(client))[0]["linked_question_ids"] == [1, "a"]


async def test_a_list_is_never_stale_in_any_process(settings: Settings, seeded: asyncpg.Connection) -> None:
    del seeded
    async with started(create_app(settings)) as writer, started(create_app(settings)) as reader:
        path = await create(writer, "0")
        for number in range(1, 30):
            await writer.put(path, headers=OWNER, json={"collection_name": str(number)})
            lists = await asyncio.gather(*(listed(client) for client in (reader, writer, reader)))
            names = {
                item["collection_name"]
                for items in lists
                for item in items
                if path.endswith(str(item["collection_id"]))
            }
            assert names == {str(number)}


async def test_timestamps_have_no_microseconds_where_they_are_zero(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    await seeded.execute(
        "UPDATE collections SET created_at = '2025-10-03 01:00:00+01', updated_at = '2025-10-03 00:00:00.5Z'"
        " WHERE collection_id = $1",
        NAMES["C_SEED"],
    )
    (item,) = [item for item in await listed(client) if item["collection_id"] == NAMES["C_SEED"]]
    assert item["created_at"] == "2025-10-03T00:00:00+00:00"
    assert item["updated_at"] == "2025-10-03T00:00:00.500000+00:00"
