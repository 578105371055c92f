"""API and worker as processes: with a collector, with one that hangs, and without the libraries."""

import asyncio
import contextlib
import signal
import subprocess
import sys

import asyncpg
import httpx
import pytest

from shared.settings import SettingsError
from shared.tracing import LAST_EXPORT_SECONDS, require_exporter
from tests.drift import drained
from tests.forked import ROOT
from tests.legacy_rows import seed
from tests.processes import (
    HANG_SECONDS,
    Running,
    environment,
    free_port,
    running,
    running_api,
    running_worker,
)
from tests.tracing.collector import collecting, hanging
from tests.tracing.spans import BATCH, EVENT, made_up

ALL = "/projects/p1/collections"
POST = "POST /projects/{project_id}/collections"
OWNER = {"User-ID": "owner"}
# As if the optional libraries had never been installed.
WITHOUT = """
import runpy, sys
for name in ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.instrumentation"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
UNASKED = """
import os, sys, api.main, worker.main, shared.tracing
for forbidding in ({}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_SDK_DISABLED": "true"}):
    if forbidding:
        os.environ.update(forbidding, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    shared.tracing.Tracing("api").start()
    assert not shared.tracing.is_on()
    for name in forbidding:
        del os.environ[name]
optional = ("opentelemetry.sdk", "opentelemetry.exporter")
print([name for name in sys.modules if name.startswith(optional)])
"""


@pytest.fixture(autouse=True)
async def _seeded(sql: asyncpg.Connection) -> None:
    await seed(sql)


async def write(client: httpx.AsyncClient, **headers: str) -> None:
    answer = await client.post(ALL, headers=OWNER | headers, json={"collection_name": "x"})
    assert answer.status_code == 200, answer.text


async def answers(api: Running, client: httpx.AsyncClient) -> None:
    """Wait until the API answers."""
    while True:
        with contextlib.suppress(httpx.TransportError):
            await client.get("/healthz")
            return
        assert api.process.poll() is None, api.output
        await asyncio.sleep(0.05)


async def stopped(process: Running) -> None:
    """End the process as an operator does."""
    process.signal(signal.SIGTERM)
    assert await process.exit_code() in {0, -signal.SIGTERM}, process.output


async def test_a_collector_gets_one_trace_from_two_processes(
    database_url: str, redis_url: str, sql: asyncpg.Connection
) -> None:
    """Sent when the processes end at the latest: here nothing else makes them send."""
    caller = made_up()
    with collecting() as collector:
        env = environment(
            database_url,
            redis_url,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="600000",
        )
        async with running_worker(env) as worker, running_api(env) as (api, url):
            async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
                await write(client, traceparent=caller)
            await drained(sql)
            await worker.wait_for("event_settled")
            assert collector.spans == []
            await asyncio.gather(stopped(api), stopped(worker))
    request, applied = collector.named(POST), collector.named(EVENT)
    assert (request["trace"], request["parent"]) == (caller[3:35], caller[36:52])
    assert (applied["trace"], applied["parent"]) == (caller[3:35], request["span"])
    assert (request["service"], applied["service"]) == ("collection-sync-api", "collection-sync-worker")
    assert collector.named(BATCH)["parent"] == ""


@pytest.mark.wide
async def test_a_collector_that_hangs_slows_no_request_and_delays_the_end_by_two_seconds_at_most(
    database_url: str, redis_url: str, sql: asyncpg.Connection
) -> None:
    """An export is under way all the time, and gives up later than anybody here waits."""
    assert LAST_EXPORT_SECONDS <= 2
    with hanging() as endpoint:
        env = environment(
            database_url,
            redis_url,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            OTEL_EXPORTER_OTLP_TIMEOUT=str(10 * HANG_SECONDS),
            OTEL_BSP_SCHEDULE_DELAY="20",
            OTEL_BSP_MAX_QUEUE_SIZE="16",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="4",
        )
        async with running_worker(env) as worker, running_api(env) as (api, url):
            async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
                for _ in range(50):
                    await write(client)
            await drained(sql)
            await asyncio.gather(stopped(api), stopped(worker))
        assert worker.logged("worker_stopped")


@pytest.mark.wide
async def test_without_the_libraries_the_callers_trace_is_handed_on_all_the_same(
    database_url: str, redis_url: str, sql: asyncpg.Connection
) -> None:
    env, port, caller = environment(database_url, redis_url), free_port(), made_up()
    uvicorn = ["-c", WITHOUT, "uvicorn", "api.main:app", "--port", str(port), "--no-access-log"]
    with running(uvicorn, env) as api, running(["-c", WITHOUT, "worker"], env) as worker:
        await worker.wait_for("worker_started")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=HANG_SECONDS) as client:
            await answers(api, client)
            await write(client, traceparent=caller)
        await drained(sql)
        settled = await worker.wait_for("event_settled")
        written = await api.wait_for("collection_written")
    assert written["trace_id"] == caller[3:35]
    assert (settled["event_id"], settled["outcome"]) == (written["event_id"], "applied")


@pytest.mark.wide
async def test_whoever_asks_for_traces_without_the_libraries_is_told_what_to_install(
    database_url: str, redis_url: str
) -> None:
    env = environment(database_url, redis_url, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    with (
        running(["-c", WITHOUT, "worker"], env) as worker,
        running(["-c", WITHOUT, "uvicorn", "api.main:app", "--port", str(free_port())], env) as api,
    ):
        assert (await worker.exit_code(), await api.exit_code()) == (2, 2)
    for process in (worker, api):
        assert "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, but opentelemetry" in process.output
        assert "pip install opentelemetry-sdk" in process.output
        assert "Traceback" not in process.output


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "console"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
    ],
)
def test_what_is_not_offered_is_refused(setting: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    require_exporter()
    monkeypatch.setenv(setting, value)
    with pytest.raises(SettingsError, match=f"{setting}: only"):
        require_exporter()


def test_nothing_of_the_sdk_is_imported_until_somebody_asks() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", UNASKED],
        cwd=ROOT,
        env=environment("", ""),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("[]\n", "")
