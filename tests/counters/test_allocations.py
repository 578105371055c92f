"""What an event costs the worker's memory: few objects, and a batch's worth at a time."""

import gc
import sys
import tracemalloc
from typing import Any

import asyncpg
import pytest

from benchmarks.backlog import append_mixed, empty
from shared.settings import Settings
from tests.counters.draining import worker_parts
from tests.draining import BATCH_SIZE, run_once
from worker.relay.batch import Batch
from worker.relay.claim import LIVE_LANE

FEW_EVENTS, MANY_EVENTS = 2_000, 10_000
MOST_OBJECTS = 9  # for each event: itself, id, collection, project, age; its verdict's place


async def peak_bytes(settings: Settings, sql: asyncpg.Connection, events: int) -> int:
    """Drain so many events; return the most memory that Python's objects took meanwhile."""
    await empty(sql)
    await append_mixed(sql, events)
    async with worker_parts(settings) as ctx:
        tracemalloc.start()
        try:
            await ctx["drainer"].drain("sweep")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


async def growth(settings: Settings, sql: asyncpg.Connection) -> float:
    """Return by which factor a backlog that is five times as long takes more memory."""
    few = await peak_bytes(settings, sql, FEW_EVENTS)
    return await peak_bytes(settings, sql, MANY_EVENTS) / few


async def test_memory_is_bounded_by_a_batch_however_long_the_backlog(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    assert await growth(settings, sql) < 2.2


async def test_memory_would_grow_if_batches_were_kept(
    settings: Settings, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Batch] = []

    async def run_and_keep(*how: Any, **more: Any) -> Batch:  # noqa: ANN401 - whatever run_once takes
        kept.append(await run_once(*how, **more))
        return kept[-1]

    monkeypatch.setattr("worker.drainer.run_once", run_and_keep)
    assert await growth(settings, sql) > 2.2


async def test_a_batch_has_few_objects_for_each_of_its_events(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    await empty(sql)
    await append_mixed(sql, 2 * BATCH_SIZE)
    async with worker_parts(settings) as ctx:
        engine = ctx["engines"][0]
        await run_once(engine, BATCH_SIZE, LIVE_LANE)  # what is made once
        gc.collect()
        gc.disable()
        try:
            before = sys.getallocatedblocks()
            batch = await run_once(engine, BATCH_SIZE, LIVE_LANE)
            made = sys.getallocatedblocks() - before
        finally:
            gc.enable()
    assert len(batch.events) == BATCH_SIZE
    assert BATCH_SIZE < made <= MOST_OBJECTS * BATCH_SIZE
