"""The heartbeat in the log: what waits, and that the worker lives, whoever else is away."""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from deploy.local.valkey import Valkey
from shared.events import Source
from shared.settings import Settings
from tests.legacy_rows import set_collection
from tests.processes import environment, running_worker
from tests.worker.events import append_raw
from worker import heartbeat
from worker.heartbeat import BEAT_SECONDS, Heart
from worker.relay import drain


async def beat(engine: AsyncEngine) -> dict[str, Any]:
    with capture_logs() as lines:
        await Heart(engine, "host:1").beat()
    [line] = lines
    assert line["event"] == "worker_heartbeat"
    return dict(line)


async def test_it_counts_what_waits_in_each_lane_and_how_long_the_oldest_has(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await append_raw(sql, "poison", created_at="not a time")
    await drain(engine)
    for name in ("first", "second"):
        await set_collection(engine, name)
    await set_collection(engine, "bulk", source=Source.BACKFILL)
    await sql.execute("""
        UPDATE outbox_events SET created_at = created_at - interval '90 s' WHERE aggregate_id = 'first'
    """)
    line = await beat(engine)
    assert (line["pending_live"], line["pending_repair"], line["pending_backfill"]) == (2, 0, 1)
    assert 90 <= line["oldest_live_seconds"] < 100
    assert line["oldest_repair_seconds"] == 0
    assert 0 < line["oldest_backfill_seconds"] < 10
    assert (line["dead_letters"], line["database"], line["log_level"]) == (1, "up", "info")
    assert abs(line["clock_offset_ms"]) < 1000


async def test_a_backlog_is_counted_up_to_a_bound(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "MOST_COUNTED", 2)
    for name in ("c1", "c2", "c3"):
        await set_collection(engine, name)
    assert (await beat(engine))["pending_live"] == 2


@pytest.mark.parametrize("analysed", ["while it was empty", "now"])
async def test_it_reads_no_more_of_the_outbox_than_it_counts(
    engine: AsyncEngine, sql: asyncpg.Connection, analysed: str
) -> None:
    await sql.execute("ANALYZE outbox_events")
    await sql.execute("""
        INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
        SELECT 'c' || number, 'collection.updated', 'backfill', '{}' FROM generate_series(1, 20000) AS number
    """)
    if analysed == "now":
        await sql.execute("VACUUM ANALYZE outbox_events")
    async with sql.transaction():
        await sql.execute(str(heartbeat.BY_INDEX_ONLY))
        statement = str(heartbeat.LOOK).replace(":most", "100")
        plan = "\n".join(row[0] for row in await sql.fetch(f"EXPLAIN (ANALYZE, COSTS OFF) {statement}"))
    assert plan.count("using outbox_events_claim_order") == 4, plan
    assert "Rows Removed" not in plan, plan
    assert (await beat(engine))["pending_backfill"] == 20_000


async def test_while_postgresql_does_not_answer_it_beats_all_the_same(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    async with sql.transaction():
        await sql.execute("LOCK TABLE outbox_events")
        beating = asyncio.create_task(beat(engine))
        await asyncio.wait([beating], timeout=BEAT_SECONDS)
        assert beating.done()
    away = await beating
    assert (away["database"], away["pending_live"], away["log_level"]) == ("away", None, "warning")
    back = await beat(engine)
    assert (back["database"], back["pending_live"]) == ("up", 0)


async def test_while_redis_is_away_a_worker_says_so_with_each_beat(
    tmp_path: Path, settings: Settings
) -> None:
    valkey = Valkey(tmp_path / "valkey")
    with valkey:
        url = valkey.url
        async with running_worker(environment(settings.database_url.get_secret_value(), url)) as worker:
            assert (await worker.wait_for("worker_heartbeat"))["redis"] == "up"
            valkey.stop()
            await worker.wait_for("redis_lost")
            assert (await worker.wait_for("worker_heartbeat", 2, seconds=BEAT_SECONDS + 5))["redis"] == "away"
