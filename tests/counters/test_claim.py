"""What a batch reads: few rows, whatever waits, was settled before, or is believed by the planner."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import asyncpg
import pytest

from benchmarks.backlog import append_hot, append_mixed, empty, require_agreement
from shared.events import NEWEST_KNOWN_VERSION, Source
from shared.planner import PLANNED_ONCE
from shared.postgres.database import driver_connection
from shared.settings import Settings
from tests.counters.draining import Append, append_backfill, sessions_ended, worker_parts
from tests.draining import BATCH_SIZE
from tests.engines import COUNTS_AT_ONCE
from tests.twins.replacing import replaced
from worker.relay.claim import BEGINNING, CLAIM

Prepare = Callable[[asyncpg.Connection], Awaitable[None]]

PENDING = 100_000
EVENTS = 10_000
HOT_KEYS = 200
WARMING = 50
FILL = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT 'c-' || number % $2, 'collection.updated', 'api', jsonb_build_object('project_id', 'p1',
        'research_context', 'What was written as ' || number, 'created_at', NULL, 'updated_at', NULL)
    FROM generate_series(1, $1::integer) AS number
"""
FILL_LATER = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload, schema_version)
    SELECT 'c-' || number, 'collection.updated', $2, '{}', $3 FROM generate_series(1, $1::integer) AS number
"""
PREPARE_CLAIM = f"PREPARE claim (integer, integer, integer, bigint, bigint[]) AS {CLAIM}"
CLAIM_LIVE = f"EXECUTE claim ({BATCH_SIZE}, 0, 0, {BEGINNING.id}, '{{}}')"
TOUCH = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, CASE WHEN is_active THEN 'collection.updated' ELSE 'collection.deleted' END, 'api',
        jsonb_build_object('project_id', project_id, 'research_context', description,
            'created_at', created_at, 'updated_at', updated_at)
    FROM collections
"""
READ = """
    SELECT relname, idx_tup_fetch, seq_tup_read FROM pg_stat_user_tables
    WHERE relname IN ('outbox_events', 'applied_versions', 'project_collections')
"""


class Read(NamedTuple):
    """Rows of a table that were fetched by an index, and rows that were scanned without one."""

    fetched: float
    scanned: float


async def append_hot_ones(sql: asyncpg.Connection, events: int) -> None:
    await append_hot(sql, events, HOT_KEYS)


@pytest.fixture
async def outbox(sql: asyncpg.Connection) -> asyncpg.Connection:
    """An empty outbox that was analysed so, and that nobody vacuums or analyses unasked."""
    await sql.execute("ALTER TABLE outbox_events SET (autovacuum_enabled = off)")
    await sql.execute("VACUUM ANALYZE")
    return sql


async def cold_and_not_analyzed_since(sql: asyncpg.Connection) -> None:
    await sql.execute(FILL, PENDING, PENDING)


async def cold(sql: asyncpg.Connection) -> None:
    await cold_and_not_analyzed_since(sql)
    await sql.execute("ANALYZE")


async def hot_behind_all_that_was_settled(sql: asyncpg.Connection) -> None:
    """5,000 writes on 200 keys, when 100,000 were claimed before; analysed while those were pending."""
    await cold(sql)
    await sql.execute("DELETE FROM outbox_events")
    await sql.execute(FILL, 5_000, HOT_KEYS)


async def one_is_left_of_many(sql: asyncpg.Connection) -> None:
    await cold(sql)
    await sql.execute("DELETE FROM outbox_events WHERE id < (SELECT max(id) FROM outbox_events)")


async def many_wait_for_a_later_worker(sql: asyncpg.Connection) -> None:
    """As many of each source, half of them in live lanes, of the version after the last that we know."""
    for source in Source:
        await sql.execute(FILL_LATER, PENDING // 2, source, NEWEST_KNOWN_VERSION + 1)
    await sql.execute("ANALYZE")
    await sql.execute(FILL, 5_000, HOT_KEYS)


@asynccontextmanager
async def workers_session(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """Yield a session such as the worker's batches have, which has claimed often while there was nothing."""
    async with worker_parts(settings) as ctx, driver_connection(ctx["engines"][0]) as connection:
        await connection.execute(PREPARE_CLAIM)
        for _ in range(7):  # PostgreSQL has made a plan for all arguments, and keeps it
            await connection.execute(CLAIM_LIVE)
        yield connection


def parts(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every node of a plan."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from parts(part)


async def scan(connection: asyncpg.Connection, mode: str) -> dict[str, Any]:
    """Claim, give back, and return the plan's only node that read the outbox."""
    await connection.execute(f"SET plan_cache_mode = {mode}")
    async with connection.transaction():
        plan = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {CLAIM_LIVE}")
    [found] = [part for part in parts(plan[0]["Plan"]) if part.get("Relation Name") == "outbox_events"]
    return found


def rows_read(part: dict[str, Any]) -> float:
    kinds = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    return sum(float(part.get(kind, 0)) for kind in kinds)


@pytest.mark.parametrize(
    ("situation", "claimed", "pages"),
    [
        (cold, 500, 30),
        (cold_and_not_analyzed_since, 500, 30),
        (hot_behind_all_that_was_settled, 500, 450),  # of the index; a page holds the entries of 250 events
        (one_is_left_of_many, 1, 450),
        (many_wait_for_a_later_worker, 500, 30),
    ],
)
async def test_a_claim_reads_the_rows_that_it_claims_and_no_others(
    situation: Prepare, claimed: int, pages: int, settings: Settings, outbox: asyncpg.Connection
) -> None:
    async with workers_session(settings) as connection:
        await situation(outbox)
        await connection.execute(CLAIM_LIVE)  # who comes first marks what it finds dead
        for mode in ("DEFAULT", "auto", "force_custom_plan"):
            read = await scan(connection, mode)
            assert read["Index Name"] == "outbox_events_claim_order"
            assert rows_read(read) == claimed
            assert read["Shared Hit Blocks"] + read["Shared Read Blocks"] <= pages


@pytest.mark.parametrize("others", [0, 1, 3])
async def test_a_claim_reads_what_other_workers_have_in_hand_once_and_nothing_else_for_them(
    others: int, settings: Settings, outbox: asyncpg.Connection
) -> None:
    await outbox.execute(FILL, 10_000, HOT_KEYS)
    async with AsyncExitStack() as stack:
        for _ in range(others):
            other = await stack.enter_async_context(workers_session(settings))
            await stack.enter_async_context(other.transaction())
            await other.execute(CLAIM_LIVE)
        connection = await stack.enter_async_context(workers_session(settings))
        assert rows_read(await scan(connection, "DEFAULT")) == (others + 1) * BATCH_SIZE


async def test_a_claim_that_left_out_later_versions_by_a_filter_would_walk_over_all_of_them(
    settings: Settings, outbox: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = replaced(PREPARE_CLAIM, "WHERE ", f"WHERE schema_version <= {NEWEST_KNOWN_VERSION} AND ")
    claim_live = f"EXECUTE claim ({BATCH_SIZE}, 0, {BEGINNING.lane}, {BEGINNING.id}, '{{}}')"
    monkeypatch.setattr("tests.counters.test_claim.PREPARE_CLAIM", prepare)
    monkeypatch.setattr("tests.counters.test_claim.CLAIM_LIVE", claim_live)
    async with workers_session(settings) as connection:
        await many_wait_for_a_later_worker(outbox)
        assert rows_read(await scan(connection, "DEFAULT")) == PENDING + BATCH_SIZE


async def test_in_a_session_without_the_worker_s_settings_a_claim_reads_everything_that_waits(
    settings: Settings, outbox: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.main.BATCHES", PLANNED_ONCE)
    async with workers_session(settings) as connection:
        await cold_and_not_analyzed_since(outbox)
        assert rows_read(await scan(connection, "DEFAULT")) == PENDING


async def fetched_and_scanned(sql: asyncpg.Connection) -> dict[str, Read]:
    """Return what was read of each table so far."""
    await sessions_ended(sql)
    return {name: Read(*numbers) for name, *numbers in await sql.fetch(READ)}


async def reads(settings: Settings, sql: asyncpg.Connection, append: Append) -> dict[str, Read]:
    """Drain EVENTS by plans that were made for empty tables; return what an event reads of each table."""
    await empty(sql)
    before = await fetched_and_scanned(sql)
    async with worker_parts(settings) as ctx:
        await append_backfill(sql, WARMING)
        await sql.execute("UPDATE collections SET is_active = right(collection_id, 1) > '7'")
        for _ in range(7):  # PostgreSQL has made plans for all arguments, and keeps them
            await sql.execute(TOUCH)
            await ctx["drainer"].drain("sweep")
        await append(sql, EVENTS)
        await ctx["drainer"].drain("sweep")
    after, events = await fetched_and_scanned(sql), EVENTS + 8 * WARMING
    await require_agreement(sql)  # reads whole tables itself
    return {
        name: Read(
            (read.fetched - before[name].fetched) / events, (read.scanned - before[name].scanned) / events
        )
        for name, read in after.items()
    }


@COUNTS_AT_ONCE
@pytest.mark.parametrize("append", [append_mixed, append_hot_ones], ids=["cold", "hot"])
async def test_a_batch_whose_plans_are_as_old_as_the_empty_tables_fetches_few_rows_for_an_event(
    append: Append, settings: Settings, sql: asyncpg.Connection
) -> None:
    read = await reads(settings, sql, append)
    assert 1 < read["outbox_events"].fetched <= 5
    assert 0 < read["applied_versions"].fetched <= 2
    assert 0 < read["project_collections"].fetched <= 3
    assert {table.scanned for table in read.values()} == {0}


@COUNTS_AT_ONCE
async def test_without_the_worker_s_settings_such_plans_read_whole_tables(
    settings: Settings, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.main.BATCHES", PLANNED_ONCE)
    read = await reads(settings, sql, append_mixed)
    assert max(table.scanned for table in read.values()) > 1
