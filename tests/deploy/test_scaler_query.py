"""What KEDA asks PostgreSQL, by a login that may ask nothing else."""

import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from shared.lanes import LOWEST_KNOWN_LANE
from tests.deploy.test_kubernetes import TRIGGER
from tests.security.as_role import ROLES_SQL

QUERY: str = TRIGGER["metadata"]["query"]
PENDING = 100_000
# Nobody analyses what is filled: a plan that was kept stays as it was made.
EMPTY = "ALTER TABLE outbox_events SET (autovacuum_enabled = off)", "VACUUM ANALYZE outbox_events"
FILL = f"""
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT number, 'collection.updated', CASE number % 2 WHEN 0 THEN 'backfill' ELSE 'api' END, '{{}}'
    FROM generate_series(1, {PENDING}) AS number
"""  # noqa: S608 - a constant
APPEND = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload, created_at)
    VALUES ('c', 'collection.updated', $1, '{}', clock_timestamp() - interval '1 second' * $2)
"""


@pytest.fixture
async def scaler(database_url: str, sql: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """Connect as a login of KEDA's, made as deploy/roles.sql says."""
    login, password = f"sync_scaler_{secrets.token_hex(4)}", secrets.token_hex(16)
    await sql.execute(ROLES_SQL)
    await sql.execute(f"CREATE ROLE {login} LOGIN PASSWORD '{password}' IN ROLE collection_sync_scaler")
    await sql.execute(ROLES_SQL)
    url = make_url(database_url).set(username=login, password=password)
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    yield connection
    await connection.close()
    await sql.execute(f"DROP ROLE {login}")


async def test_the_answer_is_one_number_also_where_nothing_waits(scaler: asyncpg.Connection) -> None:
    prepared = await scaler.prepare(QUERY)
    assert [column.type.name for column in prepared.get_attributes()] == ["float8"]
    assert await scaler.fetch(QUERY) == [(0.0,)]


async def test_the_answer_is_the_age_of_the_oldest_live_event(
    scaler: asyncpg.Connection, sql: asyncpg.Connection
) -> None:
    await sql.execute(APPEND, "backfill", 900)
    await sql.execute(APPEND, "repair", 800)
    assert await scaler.fetchval(QUERY) == 0.0
    began = time.monotonic()
    for age in (70, 20):
        await sql.execute(APPEND, "api", age)
    assert 70 <= await scaler.fetchval(QUERY) <= 70 + time.monotonic() - began
    await sql.execute(
        "DELETE FROM outbox_events WHERE created_at < clock_timestamp() - interval '60 seconds'"
    )
    assert 20 <= await scaler.fetchval(QUERY) <= 20 + time.monotonic() - began
    await sql.execute(APPEND, "api", -3600)  # a clock that was set back
    await sql.execute("DELETE FROM outbox_events WHERE created_at < clock_timestamp()")
    assert await scaler.fetchval(QUERY) == 0.0


def test_the_lanes_that_are_asked_for_are_those_of_live_events() -> None:
    assert f"lane BETWEEN {LOWEST_KNOWN_LANE} AND 0 " in QUERY


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in nodes(child))]


async def kept_plan(connection: asyncpg.Connection) -> dict[str, Any]:
    """Run the statement that was prepared before by the plan that was kept, and return what that did."""
    text = await connection.fetchval("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE keda")
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan


def pages(plan: dict[str, Any]) -> int:
    read: int = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return read


async def test_it_reads_one_entry_of_the_index_however_much_is_pending(
    scaler: asyncpg.Connection, sql: asyncpg.Connection, database_url: str
) -> None:
    """By a plan that was made while the outbox was empty; a login without the scaler's settings reads all."""
    anybody = await asyncpg.connect(database_url)
    for statement in EMPTY:
        await sql.execute(statement)
    for connection in (scaler, anybody):
        await connection.execute(f"PREPARE keda AS {QUERY}")
        await connection.fetchval("EXECUTE keda")
    await sql.execute(FILL)
    plan = await kept_plan(scaler)
    (scan,) = [node for node in nodes(plan) if "Relation Name" in node]
    assert (scan["Node Type"], scan["Index Name"]) == ("Index Scan", "outbox_events_claim_order")
    assert scan["Index Cond"] == f"((lane >= {LOWEST_KNOWN_LANE}) AND (lane <= 0))"
    assert (scan["Actual Rows"], pages(plan) <= 10) == (1, True), pages(plan)
    assert pages(await kept_plan(anybody)) > 500
    await anybody.close()
