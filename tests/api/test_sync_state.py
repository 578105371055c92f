"""What people see of their collection's way to project_collections, and what nobody sees here."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from api.main import create_app
from shared.settings import Settings
from tests.api.clients import ALL, NOT_LINKED, OWNER, P1, P2, SEEDED, STRANGER, UNKNOWN, create, started
from tests.api.recording import NAMES
from tests.audit.pairs import SYNC
from tests.backfill.driving import backfilled
from tests.draining import drain
from tests.rollback.situations import rolled_back

REFUSE = "ALTER TABLE project_collections ADD CONSTRAINT fussy CHECK (research_context <> 'poison') NOT VALID"
ACCEPT = "ALTER TABLE project_collections DROP CONSTRAINT fussy"
FINISHED = """
    INSERT INTO backfill_runs (status, in_worker, max_pending, chunk_size, planned, project_id, started_at)
    VALUES ($1, true, 1, 1, 0, $2, clock_timestamp())
"""
MAY_READ = """
    CREATE ROLE reader LOGIN PASSWORD 'reader';
    GRANT SELECT ON users, projects, project_collaborators, collections, applied_versions, backfill_runs
        TO reader;
    GRANT SELECT (id, aggregate_id, created_at) ON outbox_events TO reader;
    GRANT SELECT (id, aggregate_id, created_at, closed_at) ON outbox_dead_letters TO reader;
"""


async def state_of(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    answer = await client.get(f"{path}/sync", headers=OWNER)
    assert answer.status_code == 200, answer.text
    state: dict[str, Any] = answer.json()
    assert list(state) == [
        "collection_id", "state", "applied_version", "latest_version", "lag_ms", "dead_letter_id"
    ]  # fmt: skip
    assert state["collection_id"] == path.rpartition("/")[2]
    return state


async def put(client: httpx.AsyncClient, path: str, description: str, sql: asyncpg.Connection) -> int:
    """Change the collection and return the id of its event."""
    answer = await client.put(path, headers=OWNER, json={"description": description})
    assert answer.status_code == 200, answer.text
    event_id: int = await sql.fetchval("SELECT max(id) FROM outbox_events")
    return event_id


def step(state: str, applied: int | None, latest: int | None) -> dict[str, Any]:
    return {"state": state, "applied_version": applied, "latest_version": latest}


async def test_the_states_follow_a_collection_from_before_the_backfill_to_its_healing(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, engine: AsyncEngine
) -> None:
    before = await state_of(client, SEEDED)
    assert before.items() >= (step("pending", None, None) | {"lag_ms": 0}).items()

    first = await put(client, SEEDED, "first", seeded)
    written = await state_of(client, SEEDED)
    assert written.items() >= step("pending", None, first).items()
    assert 0 < written["lag_ms"] < 10_000

    await drain(engine)
    applied = await state_of(client, SEEDED)
    assert applied.items() >= (step("synced", first, first) | {"lag_ms": 0}).items()

    await seeded.execute(REFUSE)
    poison = await put(client, SEEDED, "poison", seeded)
    assert (await state_of(client, SEEDED)).items() >= step("pending", first, poison).items()
    await drain(engine)
    dead = await state_of(client, SEEDED)
    assert dead.items() >= (step("dead", first, poison) | {"lag_ms": 0, "dead_letter_id": poison}).items()

    await seeded.execute(ACCEPT)
    healing = await put(client, SEEDED, "healing", seeded)
    waiting = await state_of(client, SEEDED)
    assert waiting.items() >= (step("pending", first, healing) | {"dead_letter_id": poison}).items()
    await drain(engine)  # no worker has closed the letter yet
    healed = await state_of(client, SEEDED)
    assert (
        healed.items() >= (step("synced", healing, healing) | {"lag_ms": 0, "dead_letter_id": None}).items()
    )
    assert await seeded.fetchval("SELECT state FROM outbox_dead_letters") == "dead"


async def test_what_a_backfill_found_in_sync_is_synced_at_no_version(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await seeded.execute(SYNC)
    await backfilled(engine)
    await seeded.execute("UPDATE backfill_runs SET status = 'cancelled'")  # that it passed by says nothing
    assert await seeded.fetchval("SELECT array_agg(DISTINCT version) FROM applied_versions") == [0]
    assert (await state_of(client, SEEDED)).items() >= step("synced", None, None).items()


async def test_a_letter_that_was_closed_is_not_named_and_what_died_is_dead_still(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await seeded.execute(REFUSE)
    await put(client, SEEDED, "poison", seeded)
    newer = await put(client, SEEDED, "poison", seeded)
    await drain(engine)
    assert (await state_of(client, SEEDED)).items() >= {"state": "dead", "dead_letter_id": newer}.items()
    await seeded.execute("UPDATE outbox_dead_letters SET state = 'discarded', closed_at = now()")
    assert (await state_of(client, SEEDED)).items() >= {"state": "dead", "dead_letter_id": None}.items()


async def test_a_collection_that_was_never_applied_is_dead_once_its_first_event_died(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await seeded.execute(REFUSE)
    path = await create(client, description="poison")
    await drain(engine)
    event_id = await seeded.fetchval("SELECT id FROM outbox_dead_letters")
    assert (await state_of(client, path)).items() >= step("dead", None, event_id).items()


async def test_a_write_whose_version_went_back_is_dead_and_not_synced(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, engine: AsyncEngine
) -> None:
    for text in ("one", "two"):
        shown = await put(client, SEEDED, text, seeded)
    await drain(engine)
    await seeded.execute("SELECT setval(pg_get_serial_sequence('outbox_events', 'id'), 1, false)")
    await put(client, SEEDED, "lost without a word, if this said synced", seeded)
    await drain(engine)
    dead = step("dead", shown, shown) | {"dead_letter_id": 1}
    assert (await state_of(client, SEEDED)).items() >= dead.items()


async def test_the_lag_is_that_of_the_oldest_waiting_event(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    old = await put(client, SEEDED, "old", seeded)
    await seeded.execute(
        "UPDATE outbox_events SET created_at = created_at - interval '90 s' WHERE id = $1", old
    )
    new = await put(client, SEEDED, "new", seeded)
    state = await state_of(client, SEEDED)
    assert state["latest_version"] == new
    assert 90_000 < state["lag_ms"] < 100_000


async def test_a_deletion_can_be_followed_until_its_row_is_gone(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, engine: AsyncEngine
) -> None:
    path = await create(client)
    await drain(engine)
    await client.delete(path, headers=OWNER)
    assert (await state_of(client, path))["state"] == "pending"
    await drain(engine)
    assert (await state_of(client, path))["state"] == "synced"
    assert await seeded.fetchval(
        "SELECT count(*) FROM project_collections WHERE collection_id = $1", path.rpartition("/")[2]
    ) == 0  # fmt: skip


async def test_a_finished_backfill_has_passed_what_was_there_before_it_and_needed_nothing(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    await seeded.execute(FINISHED, "running", None)
    assert (await state_of(client, SEEDED)).items() >= step("pending", None, None).items()
    await seeded.execute("UPDATE backfill_runs SET status = 'finished'")
    assert (await state_of(client, SEEDED)).items() >= step("synced", None, None).items()
    await seeded.execute("UPDATE collections SET created_at = clock_timestamp()")
    assert (await state_of(client, SEEDED))["state"] == "pending"


async def test_a_finished_backfill_of_one_project_says_nothing_of_another(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    await seeded.execute(FINISHED, "finished", P2)
    assert (await state_of(client, SEEDED))["state"] == "pending"
    await seeded.execute(FINISHED, "finished", P1)
    assert (await state_of(client, SEEDED))["state"] == "synced"


async def test_after_a_rollback_every_collection_awaits_the_backfill_again(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await seeded.execute(FINISHED, "finished", None)
    await put(client, NOT_LINKED, "text", seeded)
    await drain(engine)
    assert (await state_of(client, NOT_LINKED))["state"] == "synced"
    assert (await rolled_back(engine)).removed == 1
    for path in (NOT_LINKED, SEEDED):
        assert (await state_of(client, path)).items() >= step("pending", None, None).items()


async def test_a_change_by_hand_is_not_seen_here(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await put(client, SEEDED, "by the api", seeded)
    await drain(engine)
    await seeded.execute("UPDATE collections SET description = 'by hand'")
    assert (await state_of(client, SEEDED))["state"] == "synced"


async def test_the_projects_people_may_ask_by_id_or_e_mail_and_nobody_else(
    client: httpx.AsyncClient,
) -> None:
    for caller in (NAMES["OWNER"], NAMES["OWNER_EMAIL"], NAMES["EDITOR"], NAMES["EDITOR_EMAIL"]):
        assert (await client.get(f"{SEEDED}/sync", headers={"User-ID": caller})).status_code == 200
    for headers in (STRANGER, {}, {"User-ID": ""}):
        denied = await client.get(f"{SEEDED}/sync", headers=headers)
        assert (denied.status_code, denied.json()) == (403, {"detail": "Access denied"})


async def test_access_is_judged_before_the_row(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"{UNKNOWN}/sync", headers=STRANGER)).status_code == 403
    for path in (UNKNOWN, f"/projects/{P1}/collections/{NAMES['C_SHARED']}x", f"{ALL}/%ff"):
        unknown = await client.get(f"{path}/sync", headers=OWNER)
        assert (unknown.status_code, unknown.json()) == (404, {"detail": "Collection not found"})
    for path in (f"{ALL}/a%00b", "/projects/a%00b/collections/c"):
        assert (await client.get(f"{path}/sync", headers=OWNER)).status_code == 403


async def test_a_collection_has_its_state_in_its_home_project_only(client: httpx.AsyncClient) -> None:
    linked = f"/projects/{P2}/collections/{NAMES['C_SHARED']}/sync"
    assert (await client.get(linked, headers={"User-ID": NAMES["MAILUSER"]})).status_code == 404


async def test_only_get_is_offered(client: httpx.AsyncClient) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert (await client.request(method, f"{SEEDED}/sync", headers=OWNER)).status_code == 405


@pytest.fixture
async def reader(settings: Settings, seeded: asyncpg.Connection) -> AsyncIterator[Settings]:
    """Settings of a role that may read neither project_collections nor any payload."""
    await seeded.execute(MAY_READ)
    url = make_url(settings.database_url.get_secret_value()).set(username="reader", password="reader")
    yield settings.model_copy(update={"database_url": SecretStr(url.render_as_string(hide_password=False))})
    await seeded.execute("DROP OWNED BY reader; DROP ROLE reader")


async def test_neither_the_target_nor_a_payload_is_read(reader: Settings, client: httpx.AsyncClient) -> None:
    assert (await client.put(NOT_LINKED, headers=OWNER, json={})).status_code == 200
    async with started(create_app(reader)) as limited:
        assert (await state_of(limited, NOT_LINKED))["state"] == "pending"


async def test_of_what_was_deleted_long_ago_no_version_is_known_and_it_is_synced_all_the_same(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, engine: AsyncEngine
) -> None:
    path = await create(client)
    await client.delete(path, headers=OWNER)
    await drain(engine)
    await seeded.execute("DELETE FROM applied_versions")  # as the worker does in time
    assert await state_of(client, path) | step("pending", None, None) == await state_of(client, path)
    await seeded.execute(FINISHED, "finished", None)
    await seeded.execute("UPDATE backfill_runs SET started_at = '2000-01-01'")
    assert await state_of(client, path) | step("synced", None, None) == await state_of(client, path)
