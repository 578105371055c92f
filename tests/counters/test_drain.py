"""What an event costs that is drained in bulk: on the wire, in the write-ahead log, and in dead tuples."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from pydantic import SecretStr

from benchmarks.backlog import append_mixed, empty, require_agreement
from shared.settings import Settings
from tests.counters.draining import Append, append_backfill, drain, drain_by_hand, sessions_ended
from tests.databases import Databases
from tests.engines import COUNTS_AT_ONCE
from tests.round_trips import Wire, counted

MANY_EVENTS = 20_000
EVENTS = 10_000
FEW_EVENTS = 2_000
BACKLOGS = pytest.mark.parametrize("append", [append_mixed, append_backfill], ids=["live", "backfill"])
WAL = "SELECT pg_current_wal_insert_lsn()"
WAL_SINCE = "SELECT pg_current_wal_insert_lsn() - $1::pg_lsn"
UNCLEAN_ENDS = """
    INSERT INTO worker_processes (name, heartbeat_at)
    SELECT 'gone', clock_timestamp() - interval '1 minute' FROM generate_series(1, 3)
"""
TUPLES = "SELECT n_tup_upd, n_tup_del, n_dead_tup FROM pg_stat_user_tables WHERE relname = 'outbox_events'"


@pytest.fixture
async def tables(sql: asyncpg.Connection, databases: Databases) -> asyncpg.Connection:
    """Tables as new, which nobody vacuums while they are looked at, on a server that does nothing else."""
    await asyncio.to_thread(databases.execute, "SELECT")  # after the clone for the next test
    for table in ("outbox_events", "applied_versions", "project_collections"):
        await sql.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    await empty(sql)
    return sql


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spoil what makes an event cheap."""
    monkeypatch.setattr("worker.drainer.LIVE_BATCH", 10)
    monkeypatch.setattr("worker.drainer.BULK_BATCH", 10)


async def traffic(settings: Settings, sql: asyncpg.Connection) -> Wire:
    """Drain what is pending and return all that was sent for it, the opening of connections included."""
    async with counted(settings.database_url.get_secret_value()) as wire:
        await drain(settings.model_copy(update={"database_url": SecretStr(wire.url)}))
    await require_agreement(sql)
    return wire


@BACKLOGS
async def test_an_event_takes_a_fiftieth_of_a_round_trip_at_most(
    append: Append, settings: Settings, tables: asyncpg.Connection
) -> None:
    await append(tables, MANY_EVENTS)  # what opens and checks connections is shared by all of them
    wire = await traffic(settings, tables)
    assert 0 < wire.statements <= wire.round_trips <= 0.02 * MANY_EVENTS


@pytest.mark.usefixtures("small_batches")
@BACKLOGS
async def test_small_batches_take_many_round_trips(
    append: Append, settings: Settings, tables: asyncpg.Connection
) -> None:
    await append(tables, FEW_EVENTS)
    wire = await traffic(settings, tables)
    assert wire.statements > 0.5 * FEW_EVENTS


async def wal_bytes(
    sql: asyncpg.Connection, append: Append, events: int, work: Callable[[], Awaitable[None]]
) -> float:
    """Return the bytes of log for each event, whole pages included, as after every checkpoint."""
    await empty(sql)
    await append(sql, events)
    await sql.execute("CHECKPOINT")
    before = await sql.fetchval(WAL)
    await work()
    written = await sql.fetchval(WAL_SINCE, before)
    await require_agreement(sql)
    return float(written) / events


@BACKLOGS
async def test_an_event_writes_hardly_more_log_than_by_a_hand_written_loop(
    append: Append, settings: Settings, tables: asyncpg.Connection
) -> None:
    by_hand = await wal_bytes(tables, append, EVENTS // 2, lambda: drain_by_hand(settings))
    ours = await wal_bytes(tables, append, EVENTS // 2, lambda: drain(settings))
    assert 0 < ours <= 1.3 * by_hand


async def test_an_event_that_is_marked_first_writes_much_more_log(
    settings: Settings, tables: asyncpg.Connection
) -> None:
    """As it is after crashes, see worker/relay/caution.py; and as it would be with a column of states."""

    async def drain_after_crashes() -> None:
        await tables.execute(UNCLEAN_ENDS)
        await drain(settings)

    by_hand = await wal_bytes(tables, append_mixed, FEW_EVENTS, lambda: drain_by_hand(settings))
    assert await wal_bytes(tables, append_mixed, FEW_EVENTS, drain_after_crashes) > 1.3 * by_hand


async def tuples(sql: asyncpg.Connection, settings: Settings, append: Append, events: int) -> tuple[int, ...]:
    """Drain so many events; return how many tuples of the outbox were updated, deleted and are dead."""
    await append(sql, events)
    await sql.execute("VACUUM outbox_events")
    before = await sql.fetchrow(TUPLES)
    await drain(settings)
    await sessions_ended(sql)
    after = await sql.fetchrow(TUPLES)
    return tuple(now - then for now, then in zip(after, before, strict=True))


@COUNTS_AT_ONCE
@BACKLOGS
async def test_an_event_leaves_one_dead_tuple_in_the_outbox(
    append: Append, settings: Settings, tables: asyncpg.Connection
) -> None:
    assert await tuples(tables, settings, append, FEW_EVENTS) == (0, FEW_EVENTS, FEW_EVENTS)


@COUNTS_AT_ONCE
async def test_an_event_that_is_marked_first_leaves_another(
    settings: Settings, tables: asyncpg.Connection
) -> None:
    await tables.execute(UNCLEAN_ENDS)
    updated, deleted, dead = await tuples(tables, settings, append_mixed, FEW_EVENTS)
    assert (updated, deleted) == (FEW_EVENTS, FEW_EVENTS)
    assert dead > 1.5 * FEW_EVENTS  # less than two, as far as pages were pruned meanwhile
