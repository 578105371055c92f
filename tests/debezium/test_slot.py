"""What Debezium makes of a slot that is gone, of a server that is busy elsewhere, and of deletions."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from deploy.local.postgres import Postgres
from tests.debezium.conftest import reading

pytestmark = [pytest.mark.debezium, pytest.mark.timeout(900)]

SLOT = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'collection_sync_outbox'"
CONFIRMED = "SELECT confirmed_flush_lsn >= $1::text::pg_lsn FROM pg_replication_slots"
REMAKE = "SELECT pg_create_logical_replication_slot('collection_sync_outbox', 'pgoutput')"
APPEND = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    VALUES ('c', 'collection.updated', 'api', '{"research_context": null}') RETURNING id
"""


async def append_and_delete(sql: asyncpg.Connection) -> int:
    """Let an event live as shortly as a fast worker would."""
    event_id: int = await sql.fetchval(APPEND)
    await sql.execute("DELETE FROM outbox_events")
    return event_id


@pytest.mark.parametrize("made_anew", [False, True])
async def test_a_slot_that_was_lost_stops_debezium_and_is_no_silent_gap(
    prepared: Postgres,
    session: asyncpg.Connection,
    debezium_python: Path,
    tmp_path: Path,
    made_anew: bool,  # noqa: FBT001
) -> None:
    await session.execute(APPEND)
    with reading(debezium_python, prepared, tmp_path, "before") as reader:
        await reader.has_read(1)
        await append_and_delete(session)
        await reader.has_read(2)
        await asyncio.sleep(2)
    async with asyncio.timeout(20):
        while await session.fetchval(SLOT):
            await asyncio.sleep(0.1)
    await session.execute("SELECT pg_drop_replication_slot('collection_sync_outbox')")
    await append_and_delete(session)
    if made_anew:  # after what was missed
        await session.execute(REMAKE)
    for start in ("again", "and again"):
        with reading(debezium_python, prepared, tmp_path, start) as reader:
            await reader.ended()
            assert reader.ids == []
            assert "no longer available on the server" in reader.errors


async def test_deletions_and_updates_are_no_messages_whatever_the_publication_sends(
    prepared: Postgres, session: asyncpg.Connection, debezium_python: Path, tmp_path: Path
) -> None:
    await session.execute(
        "ALTER PUBLICATION collection_sync_outbox SET (publish = 'insert, update, delete, truncate')"
    )
    ids = [await session.fetchval(APPEND)]
    with reading(debezium_python, prepared, tmp_path, "all") as reader:
        await reader.has_read(1)
        for _ in range(5):
            await session.execute("UPDATE outbox_events SET attempts = attempts + 1")
            ids.append(await append_and_delete(session))
        await session.execute("TRUNCATE outbox_events")
        ids.append(await session.fetchval(APPEND))
        await reader.has_read(len(ids))
        await asyncio.sleep(2)
        assert reader.ids == ids


async def test_a_quiet_outbox_lets_the_log_of_a_busy_server_go(
    prepared: Postgres, session: asyncpg.Connection, debezium_python: Path, tmp_path: Path
) -> None:
    await session.execute(APPEND)
    with reading(debezium_python, prepared, tmp_path, "quiet") as reader:
        await reader.has_read(1)
        await session.execute(
            "CREATE TABLE elsewhere AS SELECT g, repeat('x', 500) FROM generate_series(1, 50000) g"
        )
        written = await session.fetchval("SELECT pg_current_wal_lsn()::text")
        async with asyncio.timeout(60):
            while not await session.fetchval(CONFIRMED, written):
                await asyncio.sleep(0.2)
