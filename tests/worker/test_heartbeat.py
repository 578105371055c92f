"""The heartbeat in the log: what waits, and that the worker lives, whoever else is away."""

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs
from structlog.typing import EventDict

from deploy.local.valkey import Valkey
from shared.events import Source
from shared.postgres.database import create_engine
from shared.postgres.pooler import UnfitServerError
from shared.settings import Settings
from shared.status.waiting import LANES
from tests.backfill.driving import backfilled
from tests.draining import drain
from tests.legacy_rows import set_collection
from tests.processes import HANG_SECONDS
from tests.rollback.situations import rolled_back
from tests.worker.events import append_raw
from worker.main import arq_settings, build_worker
from worker.relay.outcomes import Outcome
from worker.vitals import heartbeat
from worker.vitals.heartbeat import BEAT_SECONDS, Heart


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> float | None:
    """Let a heartbeat wait for a busy machine; return how long it waits in the product."""
    patience: float | None = heartbeat.HEARTBEAT_PATIENCE_SECONDS
    monkeypatch.setattr(heartbeat, "HEARTBEAT_PATIENCE_SECONDS", HANG_SECONDS)
    return patience


async def beat(engine: AsyncEngine) -> dict[str, Any]:
    with capture_logs() as lines:
        await Heart(engine, "host:1").beat()
    [line] = lines
    assert line["event"] == "worker_heartbeat"
    return dict(line)


AGES = """
    SELECT aggregate_id, extract(epoch FROM clock_timestamp() - created_at)::float8 FROM outbox_events
"""
ROUNDED = 0.001


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
    earlier, began = dict(await sql.fetch(AGES)), time.monotonic()
    line = await beat(engine)
    took_ms, later = (time.monotonic() - began) * 1000, dict(await sql.fetch(AGES))
    assert (line["pending_live"], line["pending_repair"], line["pending_backfill"]) == (2, 0, 1)
    for name, event in (("live", "first"), ("backfill", "bulk")):
        assert earlier[event] - ROUNDED <= line[f"oldest_{name}_seconds"] <= later[event] + ROUNDED
    assert earlier["first"] >= 90
    assert line["oldest_repair_seconds"] == 0
    assert (line["dead_letters"], line["database"], line["log_level"]) == (1, "up", "info")
    assert abs(line["clock_offset_ms"]) <= took_ms


async def test_it_says_the_phase_and_whether_reads_fell_back(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    said = [await beat(engine)]
    for epoch, kind in ((1, "back"), (2, "fall_back")):
        await sql.execute("UPDATE migration_phase SET phase = 'shadow_reads', epoch = $1", epoch)
        await sql.execute(
            "INSERT INTO phase_turns (epoch, from_phase, to_phase, kind, actor, forced, gates)"
            " VALUES ($1, 'reads_moved', 'shadow_reads', $2, 'test', false, '[]')",
            epoch,
            kind,
        )
        said.append(await beat(engine))
    assert [(line["phase"], line["epoch"], line["fell_back"]) for line in said] == [
        ("legacy_only", 0, False),
        ("shadow_reads", 1, False),
        ("shadow_reads", 2, True),
    ]
    since = await sql.fetchval("SELECT extract(epoch FROM since)::float8 FROM migration_phase")
    assert said[0]["phase_since"] == since
    await sql.execute("DELETE FROM migration_phase")
    assert not {"phase", "epoch", "phase_since", "fell_back"} & (await beat(engine)).keys()


async def test_a_login_that_is_refused_is_a_database_that_is_away(settings: Settings) -> None:
    url = re.sub(r":[^:@/]+@", ":wrong@", settings.database_url.get_secret_value())
    theirs = settings.model_copy(update={"database_url": SecretStr(url)})
    engine = create_engine(theirs, application_name="test", pool_size=1, statement_timeout_seconds=30)
    line = await beat(engine)
    assert (line["database"], line["log_level"]) == ("away", "warning")
    await engine.dispose()


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
        await sql.execute(str(heartbeat.PLANNING))
        statement = str(LANES).replace(":most", "100")
        plan = "\n".join(row[0] for row in await sql.fetch(f"EXPLAIN (ANALYZE, COSTS OFF) {statement}"))
    assert plan.count("using outbox_events_claim_order") == 4, plan
    assert "Rows Removed" not in plan, plan
    assert (await beat(engine))["pending_backfill"] == 20_000


async def test_while_postgresql_does_not_answer_it_beats_all_the_same(
    engine: AsyncEngine, sql: asyncpg.Connection, patience: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert patience is not None
    assert patience < BEAT_SECONDS
    async with sql.transaction():
        await sql.execute("LOCK TABLE outbox_events")
        with monkeypatch.context() as patch:
            patch.setattr(heartbeat, "HEARTBEAT_PATIENCE_SECONDS", patience / 20)
            away = await asyncio.wait_for(beat(engine), HANG_SECONDS)
    assert (away["database"], away["pending_live"], away["log_level"]) == ("away", None, "warning")
    back = await beat(engine)
    assert (back["database"], back["pending_live"]) == ("up", 0)


async def test_while_sequences_are_wrong_it_says_what_to_do_and_no_batch_gets_a_connection(
    engine: AsyncEngine, settings: Settings, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1")
    duties = create_engine(settings, application_name="test", pool_size=1, statement_timeout_seconds=30)
    heart = Heart(duties, "host:1", others=[engine])
    with capture_logs() as lines:
        await heart.beat()
        await sql.execute("SELECT setval('outbox_events_id_seq', 1, false)")
        await heart.beat()
        with pytest.raises(UnfitServerError):
            await drain(engine)
        await sql.execute(lines[1]["hint"].partition("this SQL: ")[2])
        await heart.beat()
    seen = [(line["database"], line["pending_live"], line["log_level"]) for line in lines]
    assert seen == [("up", 1, "info"), ("unfit", None, "warning"), ("up", 1, "info")]
    assert await drain(engine) == {Outcome.APPLIED: 1}
    await duties.dispose()


async def test_while_redis_is_away_a_worker_says_so_with_each_beat(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.redis.client.REDIS_TIMEOUT_SECONDS", HANG_SECONDS)
    with Valkey(tmp_path / "valkey") as valkey, capture_logs() as lines:
        settings = settings.model_copy(update={"redis_url": SecretStr(valkey.url)})
        arguments = arq_settings(settings) | {"cron_jobs": [], "on_startup": None, "handle_signals": False}
        heart, worker = arguments["ctx"]["heart"], build_worker(settings, arguments)
        working = asyncio.create_task(worker.main())
        await heart.beat()
        valkey.stop()
        await logged(lines, "redis_lost")
        await heart.beat()
        await heart.beat()
        valkey.start()
        await logged(lines, "redis_restored")
        await heart.beat()
        working.cancel()
        await asyncio.wait([working])
        await worker.close()
    beats = [line["redis"] for line in lines if line["event"] == "worker_heartbeat"]
    assert beats == ["up", "away", "away", "up"]


async def logged(lines: list[EventDict], event: str) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while not any(line["event"] == event for line in lines):
            await asyncio.sleep(0.01)


async def test_it_names_who_holds_something_up_once_it_waits(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    assert "held_by" not in await beat(engine)
    await set_collection(engine, "c1")
    await sql.execute("UPDATE outbox_events SET created_at = created_at - interval '26 seconds'")
    assert (await beat(engine))["held_by"] == []
    holder = await asyncpg.connect(database_url, server_settings={"application_name": "psql\n\x1b[31m"})
    for table in ("project_collections", "outbox_events"):
        async with holder.transaction():
            await holder.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            line = await beat(engine)
        assert (line["database"], line["pending_live"]) == ("up", None if table == "outbox_events" else 1)
        [held_by] = line["held_by"]
        assert held_by["pid"] == holder.get_server_pid()
        assert held_by["application"].isprintable()
    await holder.close()


async def test_it_says_how_backfills_stand_and_what_was_rolled_back_before_it(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1")
    await drain(engine)
    first = await beat(engine)
    assert (first["backfill"], first["rollback"], first["read_only"]) == ({}, {}, False)
    await backfilled(engine)
    line = await beat(engine)
    assert (line["backfill"]["status"], line["backfill"]["finished_at"]) == (
        "finished",
        line["backfilled_at"],
    )
    await rolled_back(engine)
    line = await beat(engine)
    assert (line["backfill"]["status"], line["rollback"]["status"]) == ("cancelled", "finished")
    assert "backfilled_at" not in line
    async with sql.transaction():
        await sql.execute("LOCK TABLE backfill_runs IN ACCESS EXCLUSIVE MODE")
        assert "backfill" not in await beat(engine)


async def test_it_says_that_new_sessions_may_write_nothing_although_its_own_may(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    assert not (await beat(engine))["read_only"]
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    line = await beat(engine)
    assert (line["database"], line["read_only"]) == ("up", True)
    await engine.dispose()
    line = await beat(engine)
    assert (line["database"], line["read_only"]) == ("unfit", True)
