import asyncio
import itertools
import random

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.backfill_runs import BackfillOptions
from tests.backfill.driving import backfilled, chunk_of, driven, started, take
from tests.backfill.rows import (
    EXPECTED,
    UNTOUCHED,
    enqueued,
    fingerprints,
    fix_chunk_size,
    home_drift,
    insert_collection,
    insert_many,
    insert_mixed_rows,
    links_to_other_projects,
    locks,
)
from tests.draining import drain
from tests.drift import drift
from tests.processes import HANG_SECONDS


@pytest.mark.parametrize("chunk_rows", [1, 3, 1000])
async def test_a_run_enqueues_what_differs_once_and_nothing_else(
    chunk_rows: int, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_mixed_rows(sql)
    await fix_chunk_size(sql, chunk_rows)
    links = await links_to_other_projects(sql)

    run = await backfilled(engine)

    assert {kind: getattr(run, kind) for kind in EXPECTED} == {k: len(v) for k, v in EXPECTED.items()}
    assert await enqueued(sql) == dict.fromkeys(set().union(*EXPECTED.values()), 1)
    assert run.processed == run.planned == run.enqueued + len(UNTOUCHED)
    assert run.last_event_id == await sql.fetchval(
        "SELECT max(id) FROM outbox_events WHERE source = 'backfill'"
    )
    await drain(engine)
    assert await home_drift(sql) == []
    assert await links_to_other_projects(sql) == links


async def test_a_second_run_enqueues_nothing_and_writes_to_no_legacy_row(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_mixed_rows(sql)
    await backfilled(engine)
    for settle in (False, True):  # what is pending is on its way; what is applied is in sync
        if settle:
            await drain(engine)
        before = await fingerprints(sql)
        run = await backfilled(engine)
        after = await fingerprints(sql)
        assert (run.enqueued, run.processed) == (0, run.planned)
        assert {table for table in before if before[table] != after[table]} == {"backfill_runs"}


async def test_only_rows_that_are_enqueued_are_locked(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await insert_mixed_rows(sql)
    before = await locks(sql)
    await backfilled(engine)
    after = await locks(sql)
    assert {key for key in after if after[key] != before[key]} == set().union(*EXPECTED.values())


async def test_a_run_of_one_project_leaves_the_others_alone(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 30)
    await fix_chunk_size(sql, 4)
    run = await backfilled(engine, BackfillOptions(project_id="p2"))
    assert (run.planned, run.processed, run.enqueued) == (10, 10, 10)
    projects = await sql.fetch("SELECT DISTINCT payload ->> 'project_id' AS id FROM outbox_events")
    assert [row["id"] for row in projects] == ["p2"]


async def test_a_run_over_no_rows_finishes_at_once(engine: AsyncEngine) -> None:
    run = await backfilled(engine)
    assert (run.planned, run.processed, run.end_key, run.cursor_key) == (0, 0, None, None)


@pytest.mark.parametrize("where", ["beyond its end", "among its rows"])
async def test_a_run_ends_although_rows_are_inserted_faster_than_it_reads(
    where: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 40)
    await fix_chunk_size(sql, 4)
    numbers = itertools.count()

    async def insert_eight() -> None:
        for number in itertools.islice(numbers, 8):
            place = random.randint(1, 40) if where == "among its rows" else 41  # noqa: S311 - chance
            await insert_collection(sql, f"c-{place:07}-{number}")

    run = await take(engine, await started(engine))
    async with asyncio.timeout(HANG_SECONDS):
        while run.status == "running":
            run = (await chunk_of(engine, run)).run
            await insert_eight()
    assert run.status == "finished"
    assert run.processed >= 40
    assert next(numbers) > run.processed - 40


async def test_deletions_and_a_new_chunk_size_between_chunks_leave_no_gap(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 20)
    await fix_chunk_size(sql, 5)
    run = await take(engine, await started(engine))
    run = (await chunk_of(engine, run)).run
    assert run.cursor_key == "c-0000005"

    gone = ["c-0000004", "c-0000005", "c-0000006", "c-0000011"]
    await sql.execute("DELETE FROM collections WHERE collection_id = ANY($1)", gone)
    await sql.execute("UPDATE collections SET is_active = false WHERE collection_id = 'c-0000007'")
    await fix_chunk_size(sql, 3)
    while run.status == "running":
        run = (await chunk_of(engine, run)).run

    numbers = [1, 2, 3, 4, 5, *range(8, 11), *range(12, 21)]
    assert await enqueued(sql) == {f"c-{number:07}": 1 for number in numbers}
    await drain(engine)
    assert await drift(sql) == []


async def test_the_number_of_statements_does_not_depend_on_the_rows(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await insert_many(sql, "c", 4_000)
    statements: list[str] = []
    event.listen(
        engine.sync_engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2])
    )
    counts = []
    for rows in (10, 1_000):
        await fix_chunk_size(sql, rows)
        chunks: list[int] = []
        run = await started(engine, BackfillOptions(project_id="p1", max_pending=100_000))
        statements.clear()
        await driven(engine, run.id, lambda _run, chunks=chunks: chunks.append(len(statements)))  # type: ignore[misc]
        counts.append(chunks[1] - chunks[0])
        await sql.execute("TRUNCATE outbox_events")
    assert counts[0] == counts[1] <= 8


async def test_collections_with_awkward_keys_are_enqueued_once(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    keys = [
        "",
        " ",
        "a b",
        "A'b",
        'quote"',
        "{brace}",
        "back\\slash",
        "NULL",
        "ä",
        "a\u0308",
        "%s",
        ":end_key",
    ]
    for key in keys:
        await insert_collection(sql, key)
    await fix_chunk_size(sql, 2)
    run = await backfilled(engine)
    assert await enqueued(sql) == dict.fromkeys(keys, 1)
    assert run.missing == len(keys)
