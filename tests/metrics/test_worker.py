"""A worker that serves its metrics: where, when it cannot, and what it shows while PostgreSQL is away."""

import json
import socket
from datetime import UTC, datetime

import asyncpg
import psutil  # type: ignore[import-untyped]
import pytest
from prometheus_client import generate_latest
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import Settings, SettingsError, load_settings
from tests.legacy_rows import seed, set_collection
from tests.metrics.run import Exposition, database_is, scrape_when
from tests.processes import environment, free_port, running, running_worker
from tests.worker.events import append_raw
from worker.drainer import Drainer
from worker.relay.batch import Batch
from worker.relay.claim import ClaimedEvent
from worker.relay.outcomes import Outcome, Settlement
from worker.telemetry.metrics import MetricsPortError, WorkerMetrics
from worker.vitals.heartbeat import Heart, Heartbeat
from worker.vitals.runs import LOOK, RunState, RunWatch
from worker.vitals.snapshot_holders import SnapshotWatch

SETTLED = "collection_sync_events_settled_total"
GROWING = {"audit_runs", "backfill_runs"}
OLDEST = "collection_sync_oldest_pending_seconds"


def shown(metrics: WorkerMetrics) -> Exposition:
    return Exposition.of(generate_latest(metrics.registry).decode())


async def test_without_a_port_a_worker_listens_nowhere(database_url: str, redis_url: str) -> None:
    async with running_worker(environment(database_url, redis_url)) as worker:
        assert listening(worker.pid) == []


async def test_with_a_port_a_worker_listens_on_loopback_only(database_url: str, redis_url: str) -> None:
    port = free_port()
    env = environment(database_url, redis_url, WORKER_METRICS_PORT=str(port))
    async with running_worker(env) as worker:
        assert listening(worker.pid) == [f"127.0.0.1:{port}"]
        await scrape_when(f"http://127.0.0.1:{port}", database_is(1))


def listening(pid: int) -> list[str]:
    """Return the addresses on which the process listens."""
    sockets = psutil.Process(pid).net_connections("inet")
    return [f"{one.laddr.ip}:{one.laddr.port}" for one in sockets if one.status == psutil.CONN_LISTEN]


@pytest.mark.parametrize("words", [["worker"], ["arq", "worker.main.WorkerSettings"]], ids=lambda it: it[0])
async def test_a_port_that_is_taken_ends_the_worker_with_a_sentence(
    words: list[str], database_url: str, redis_url: str, sql: asyncpg.Connection
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        env = environment(database_url, redis_url, WORKER_METRICS_PORT=str(port))
        with running(["-m", *words], env) as worker:
            assert await worker.exit_code() == 2
    assert f"WORKER_METRICS_PORT: cannot listen on 127.0.0.1:{port} (EADDRINUSE)" in worker.output
    assert "Traceback" not in worker.output
    assert worker.logged("worker_started") == []
    assert await sql.fetchval("SELECT count(*) FROM worker_processes WHERE ended_at IS NULL") == 0


def test_a_host_that_cannot_be_one_is_told_like_a_port_that_is_taken() -> None:
    with pytest.raises(MetricsPortError, match=r"^WORKER_METRICS_PORT: "):
        WorkerMetrics().serve("x" * 70, 0)


async def test_arqs_own_command_serves_them_too(database_url: str, redis_url: str) -> None:
    port = free_port()
    env = environment(database_url, redis_url, WORKER_METRICS_PORT=str(port))
    with running(["-m", "arq", "worker.main.WorkerSettings"], env) as worker:
        await worker.wait_for("worker_started")
        await scrape_when(f"http://127.0.0.1:{port}", database_is(1))


async def test_a_worker_that_starts_without_postgresql_shows_names_and_no_numbers(redis_url: str) -> None:
    port, nobody = free_port(), free_port()
    env = environment(f"postgresql://u@127.0.0.1:{nobody}/d", redis_url, WORKER_METRICS_PORT=str(port))
    async with running_worker(env):
        exposed = await scrape_when(f"http://127.0.0.1:{port}", database_is(0))
    assert exposed.families[OLDEST].samples == []
    assert exposed.families["collection_sync_audit_verdict"].samples == []
    assert exposed.value("collection_sync_heartbeat_timestamp_seconds") is not None


@pytest.mark.parametrize("port", ["0", "65536", "metrics"])
def test_a_port_that_is_none_is_refused(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://h/d")
    monkeypatch.setenv("REDIS_URL", "redis://h")
    monkeypatch.setenv("WORKER_METRICS_PORT", port)
    with pytest.raises(SettingsError, match="WORKER_METRICS_PORT: "):
        load_settings(Settings)


async def test_what_waits_and_for_how_long_is_shown_and_forgotten_when_postgresql_falls_silent(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    metrics, told = WorkerMetrics(), list[Heartbeat]()
    await append_raw(sql, "c1")
    await sql.execute("UPDATE outbox_events SET created_at = created_at - interval '90 seconds'")
    await Heart(engine, "test", watch=told.append).beat()
    metrics.observe_heartbeat(told[0])
    exposed = shown(metrics)
    assert 90 <= (exposed.value(OLDEST, lane="live") or 0) < 120
    assert exposed.value(OLDEST, lane="backfill") == 0
    assert exposed.value("collection_sync_pending_events", lane="live") == 1
    metrics.observe_heartbeat(Heartbeat("test", 5.0, "away", "away"))
    exposed = shown(metrics)
    assert exposed.families[OLDEST].samples == []
    assert exposed.value("collection_sync_database_up") == 0
    assert exposed.value("collection_sync_redis_up") == 0


async def test_audits_of_one_project_and_failed_ones_are_not_shown(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    for status, project, verdict in (
        ("finished", None, "drift"),
        ("finished", "p1", "in_sync"),
        ("failed", None, None),
        ("running", None, None),
    ):
        await sql.execute(
            "INSERT INTO audit_runs (status, project_id, verdict, requested_by, repair, missing, started_at,"
            " heartbeat_at, finished_at) VALUES ($1, $2, $3, 'command', false, 3, now(), now(), $4)",
            status,
            project,
            verdict,
            None if status == "running" else datetime.now(UTC),
        )
    metrics = WorkerMetrics()
    watch = RunWatch(engine, SnapshotWatch(engine), metrics.observe_runs)
    await watch.look()
    exposed = shown(metrics)
    assert exposed.value("collection_sync_audit_verdict", verdict="drift") == 1
    assert exposed.value("collection_sync_audit_verdict", verdict="in_sync") == 0
    assert exposed.value("collection_sync_audit_pairs", kind="missing") == 3
    assert exposed.families["collection_sync_backfill_status"].samples == []
    await sql.execute("ALTER TABLE audit_runs RENAME TO away")
    with pytest.raises(SQLAlchemyError):
        await watch.look()
    assert shown(metrics).families["collection_sync_audit_verdict"].samples == []


async def test_a_held_snapshot_and_what_it_keeps_are_shown(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    states = list[RunState | None]()
    snapshots = SnapshotWatch(engine)
    watch = RunWatch(engine, snapshots, states.append)
    await append_raw(sql, "c1")
    await watch.look()
    async with engine.connect() as holder:
        await holder.execution_options(isolation_level="REPEATABLE READ")
        await holder.exec_driver_sql("SELECT 1 FROM outbox_events")
        await append_raw(sql, "c2")
        await snapshots.look()
        await watch.look()
        await holder.rollback()
    await snapshots.look()
    await watch.look()
    held = [state.snapshot_held_seconds for state in states if state]
    assert held[0] == held[2] == 0
    assert held[1] > 0
    assert all(state is not None and state.dead_events is not None for state in states)


async def test_the_look_reads_the_newest_runs_by_index_however_many_there_are(
    sql: asyncpg.Connection,
) -> None:
    await sql.execute("""
        INSERT INTO audit_runs (status, requested_by, repair, verdict, started_at, heartbeat_at, finished_at)
        SELECT 'finished', 'schedule', false, 'in_sync', at, at, at
        FROM (SELECT clock_timestamp() FROM generate_series(1, 5000)) AS _ (at)
    """)
    await sql.execute("""
        INSERT INTO backfill_runs (status, in_worker, max_pending, chunk_size, planned)
        SELECT 'finished', true, 1, 1, 0 FROM generate_series(1, 5000)
    """)
    await sql.execute("ANALYZE audit_runs, backfill_runs")
    plan = json.loads(await sql.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {LOOK.text}"))
    scans = [node for node in nodes(plan[0]["Plan"]) if node.get("Relation Name") in GROWING]
    assert {(scan["Node Type"], scan["Relation Name"], scan["Actual Rows"]) for scan in scans} == {
        ("Index Scan", "audit_runs", 1),
        ("Index Scan", "backfill_runs", 1),
    }


def nodes(plan: dict[str, object]) -> list[dict[str, object]]:
    below = plan.get("Plans", [])
    assert isinstance(below, list)
    return [plan, *(node for child in below for node in nodes(child))]


async def test_a_batch_that_fails_is_counted_by_whether_it_passes_by_itself(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    metrics = WorkerMetrics()
    drainer = Drainer(engine, observers=[metrics])
    await seed(sql)
    await set_collection(engine, "c1")
    await sql.execute("ALTER TABLE project_collections RENAME TO away")
    await drainer.drain("sweep")
    await sql.execute("ALTER TABLE away RENAME TO project_collections")
    await drainer.drain("sweep")
    failures = "collection_sync_batch_failures_total"
    exposed = shown(metrics)
    assert (exposed.value(failures, transient="false"), exposed.value(failures, transient="true")) == (1, 0)
    assert exposed.value(SETTLED, lane="live", outcome="applied") == 1


def event(number: int, lane: int) -> ClaimedEvent:
    source = ("api", "repair", "backfill")[lane]
    return ClaimedEvent(
        number,
        f"c{number}",
        "p1",
        "collection.updated",
        source,
        500.0,
        well_formed=True,
        is_borne_out=True,
        appended_at=0.0,
        attempts=0,
        lane=lane,
    )


def test_a_batch_counts_in_each_of_its_lanes_and_what_is_postponed_is_not_settled() -> None:
    metrics = WorkerMetrics()
    outcomes = [Outcome.APPLIED, Outcome.POSTPONED, Outcome.CONFLATED]
    events = [event(number, lane) for lane in (1, 2) for number in range(lane * 10, lane * 10 + 3)]
    verdicts = {event.id: Settlement(outcomes[event.id % 10]) for event in events}
    metrics.batch_settled(Batch(events, verdicts, duration_seconds=0.25))
    exposed = shown(metrics)
    for lane, times in (("live", 0), ("repair", 1), ("backfill", 1)):
        for outcome, count in (("applied", times), ("conflated", times), ("dead", 0)):
            assert exposed.value(SETTLED, lane=lane, outcome=outcome) == count
        assert exposed.value("collection_sync_events_postponed_total", lane=lane) == times
        assert exposed.value("collection_sync_event_lag_seconds_count", lane=lane) == 2 * times
        assert exposed.value("collection_sync_event_lag_seconds_sum", lane=lane) == 2 * times * 0.75
        assert exposed.value("collection_sync_batch_duration_seconds_sum", lane=lane) == times * 0.25
