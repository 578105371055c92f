"""A dead letter keeps the trace of the request that wrote its event, and shows it; a replay has its own."""

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import Settings
from tests.api.clients import OWNER, SEEDED
from tests.dead_letters.test_command import answered, command
from tests.draining import drain
from tests.processes import environment
from tests.tracing.spans import made_up

ADMIN = {"X-Admin-Token": "admin"}
POISON = "UPDATE outbox_events SET payload = payload || $1"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"admin_token": SecretStr("admin")})


async def died(client: httpx.AsyncClient, engine: AsyncEngine, sql: asyncpg.Connection) -> tuple[int, str]:
    """Write with a trace, spoil the event, and return its letter and the trace's id."""
    caller = made_up()
    await client.put(SEEDED, headers=OWNER | {"traceparent": caller}, json={"description": "x"})
    await sql.execute(POISON, '{"created_at": "never"}')
    await drain(engine)
    return await sql.fetchval("SELECT max(id) FROM outbox_dead_letters"), caller[3:35]


async def test_command_and_administrators_see_the_trace_of_a_letter(
    client: httpx.AsyncClient, engine: AsyncEngine, seeded: asyncpg.Connection, database_url: str
) -> None:
    letter, trace_id = await died(client, engine, seeded)
    env = environment(database_url, "")
    assert (await answered(env, "show", letter))["trace_id"] == trace_id
    assert f"trace       {trace_id}" in (await command(env, "show", letter)).stdout
    one = (await client.get(f"/admin/dead-letters/{letter}", headers=ADMIN)).json()
    page = (await client.get("/admin/dead-letters", headers=ADMIN)).json()
    (listed,) = page["dead_letters"]
    assert (one["trace_id"], listed["trace_id"]) == (trace_id, trace_id)


async def test_an_event_that_dies_without_a_trace_says_so(
    client: httpx.AsyncClient, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await client.put(SEEDED, headers=OWNER, json={"description": "x"})
    await seeded.execute(POISON, '{"created_at": "never"}')
    await drain(engine)
    (letter,) = (await client.get("/admin/dead-letters", headers=ADMIN)).json()["dead_letters"]
    assert letter["trace_id"] is None


async def test_a_replay_belongs_to_the_trace_of_whoever_ordered_it(
    client: httpx.AsyncClient, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    letter, _ = await died(client, engine, seeded)
    administrator = made_up()
    path = f"/admin/dead-letters/{letter}/replay"
    assert (await client.post(path, headers=ADMIN | {"traceparent": administrator})).status_code == 200
    assert await seeded.fetch("SELECT source, traceparent FROM outbox_events") == [("repair", administrator)]
