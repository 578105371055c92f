"""The worker as an operator meets it: a process with signals, exit codes, log lines and keys in Redis."""

import asyncio
import hashlib
import inspect
import json
import pickle
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from arq.constants import job_key_prefix
from arq.worker import Worker
from redis.asyncio import Redis
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.redis.doorbell import ring
from tests.doorbell.place import NOWHERE, listened_to, names_of
from tests.drift import drained
from tests.forked import run
from tests.legacy_rows import seed, set_collection
from tests.processes import HANG_SECONDS, Running, environment, running, running_api, running_worker
from tests.race import freezing
from worker.drainer import LIVE_BATCH

HEALTH_KEYS = "collection_sync:worker:*"
CANARY = "canary-9f3a7c"

WRITE_MANY = """
    WITH written AS (
        INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
        SELECT 'c' || number, 'p1', 'name', 'owner', true FROM generate_series(1, $1::integer) AS number
        RETURNING *
    )
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.created', 'api', jsonb_build_object(
        'project_id', project_id,
        'research_context', description,
        'created_at', created_at,
        'updated_at', updated_at
    )
    FROM written
"""


@pytest.fixture(autouse=True)
async def _seeded(sql: asyncpg.Connection) -> None:
    await seed(sql)


@pytest.fixture
def env(database_url: str, redis_url: str) -> dict[str, str]:
    return environment(database_url, redis_url)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


async def beaten(sql: asyncpg.Connection) -> None:
    """Wait for a sign of life that the worker begins to give after now: it gives one each second."""
    beats: set[object] = set()
    async with asyncio.timeout(HANG_SECONDS):
        while len(beats) < 3:  # the first is there already, the second may be under way
            beats.add(await sql.fetchval("SELECT max(heartbeat_at) FROM worker_processes"))
            await asyncio.sleep(0.02)


async def assert_ends(worker: Running) -> None:
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0, worker.output
    assert worker.logged("worker_stopped"), worker.output


async def test_sigterm_finishes_the_batch_in_hand_and_claims_nothing_more(
    env: dict[str, str], sql: asyncpg.Connection, redis: Redis
) -> None:
    await freezing.install(sql)
    async with running_worker(env) as worker:
        await listened_to(redis)
        async with freezing.frozen(sql, "target: before rows are written"):
            await sql.execute(WRITE_MANY, LIVE_BATCH + 1)
            await ring(redis, await names_of(sql))
            await freezing.arrived(sql, "target: before rows are written")
            worker.signal(signal.SIGTERM)
            await beaten(sql)  # it has heard of the signal, and might have claimed more
            assert worker.process.poll() is None
        assert await worker.exit_code() == 0, worker.output
    assert worker.logged("worker_stopped")
    assert await sql.fetchval("SELECT count(*) FROM project_collections") == LIVE_BATCH
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 1


async def test_sigterm_ends_an_idle_worker_at_once(
    env: dict[str, str], sql: asyncpg.Connection, redis: Redis
) -> None:
    """Nothing that it may wait for would end in our time."""
    with running(["-m", "tests.acceptance.endless_patience", "worker"], env) as worker:
        await worker.wait_for("worker_started")
        await listened_to(redis)
        await beaten(sql)
        await assert_ends(worker)


async def test_arqs_own_command_runs_the_same_jobs(
    env: dict[str, str], engine: AsyncEngine, sql: asyncpg.Connection, redis: Redis
) -> None:
    with running(["-m", "arq", "worker.main.WorkerSettings"], env) as worker:
        await worker.wait_for("worker_started")
        await set_collection(engine, "one")
        await ring(redis, await names_of(sql))
        assert (await worker.wait_for("event_settled"))["outcome"] == "applied"
        await drained(sql)
        await assert_ends(worker)


def test_arqs_own_command_says_that_it_needs_postgresql_to_know_its_queue() -> None:
    env = environment("postgresql://nobody@127.0.0.1:1/nothing", "redis://127.0.0.1:1")
    refused = run(["-m", "arq", "worker.main.WorkerSettings"], env, timeout=HANG_SECONDS)
    assert refused.returncode == 1
    assert refused.stderr.startswith("The name of the queue is not known: PostgreSQL does not answer")
    assert "Traceback" not in refused.stderr


async def test_the_end_of_one_worker_leaves_the_others_health_key(env: dict[str, str], redis: Redis) -> None:
    async with running_worker(env) as leaving, running_worker(env) as staying:
        left, kept = [worker.logged("worker_started")[0]["health_key"] for worker in (leaving, staying)]
        async with asyncio.timeout(HANG_SECONDS):
            while await redis.exists(left, kept) != 2:
                await asyncio.sleep(0.01)
            while True:  # it must neither write its key again nor let it expire
                staying.signal(signal.SIGSTOP)
                if await redis.persist(kept):
                    break
                staying.signal(signal.SIGCONT)
                await asyncio.sleep(0.01)
        await assert_ends(leaving)
        assert await redis.keys(HEALTH_KEYS) == [kept.encode()]


async def test_a_job_in_redis_is_json(redis: Redis) -> None:
    await ring(redis, NOWHERE)
    [key] = await redis.keys(f"{job_key_prefix}*")
    assert json.loads(await redis.get(key))["f"] == "drain_outbox"


class Exploit:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("program", [["worker"], ["arq", "worker.main.WorkerSettings"]])
async def test_a_pickled_job_is_not_unpickled(
    program: list[str], env: dict[str, str], engine: AsyncEngine, redis: Redis, tmp_path: Path
) -> None:
    trace, names = tmp_path / "was here", await names_of(engine)
    for name in ("evil", names.job_id):
        await redis.set(f"{job_key_prefix}{name}", pickle.dumps(Exploit(trace)))
        await redis.zadd(names.queue, {name: 1})
    with running(["-m", *program], env) as worker:
        await worker.wait_for("worker_started")
        await set_collection(engine, "one")
        await worker.wait_for("event_settled")
        async with asyncio.timeout(HANG_SECONDS):
            while await redis.exists(names.queue):
                await asyncio.sleep(0.02)
        assert worker.process.poll() is None
    assert not trace.exists()


def run_worker(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return run(["-m", "worker", *arguments], env, timeout=HANG_SECONDS)


def test_help_needs_no_environment() -> None:
    shown = run_worker("--help")
    assert shown.returncode == 0
    assert "DATABASE_URL" in shown.stdout


def test_wrong_usage_is_refused() -> None:
    assert run_worker("--no-such-option").returncode == 2


def test_a_missing_database_url_is_named_without_a_traceback(redis_url: str) -> None:
    refused = run_worker(REDIS_URL=redis_url)
    assert refused.returncode == 2
    assert "DATABASE_URL" in refused.stderr
    assert "Traceback" not in refused.stderr


async def test_the_log_file_receives_the_lines_of_stdout(
    env: dict[str, str], engine: AsyncEngine, tmp_path: Path
) -> None:
    log_file = tmp_path / "worker.log"
    async with running_worker({**env, "LOG_FILE": str(log_file)}) as worker:
        await set_collection(engine, "one")
        await worker.wait_for("event_settled")
        await assert_ends(worker)
    assert log_file.read_text(encoding="utf-8") == "".join(worker.lines)


async def test_a_password_never_shows(env: dict[str, str], sql: asyncpg.Connection) -> None:
    """The worker and the API run with a password that is right at first, and then wrong."""
    await sql.execute(f"CREATE ROLE canary LOGIN SUPERUSER PASSWORD '{CANARY}'")
    url = make_url(env["DATABASE_URL"]).set(username="canary", password=CANARY)
    env["DATABASE_URL"] = url.render_as_string(hide_password=False)
    try:
        async with (
            running_worker(env) as worker,
            running_api(env) as (api, api_url),
            httpx.AsyncClient(base_url=api_url, headers={"User-ID": "owner"}, timeout=HANG_SECONDS) as client,
        ):
            new = {"collection_name": "one"}
            assert (await client.post("/projects/p1/collections", json=new)).status_code == 200
            await worker.wait_for("event_settled")
            await sql.execute("ALTER ROLE canary PASSWORD 'another'")
            await sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'canary'"
            )
            answers = [await client.post("/projects/p1/collections", json=new) for _ in range(3)]
            answers.append(await client.get("/readyz"))
            await worker.wait_for("batch_failed", count=3)
            await assert_ends(worker)
    finally:
        await sql.execute("DROP ROLE canary")
    assert not any(answer.is_success for answer in answers)
    assert CANARY not in "".join([*worker.lines, *api.lines, *(answer.text for answer in answers)])


@pytest.mark.parametrize("variable", ["DATABASE_URL", "REDIS_URL"])
def test_a_password_in_a_url_of_another_kind_never_shows(variable: str, env: dict[str, str]) -> None:
    refused = run_worker(**{**env, variable: f"nonsense://user:{CANARY}@host/x"})
    assert refused.returncode == 2
    assert variable in refused.stderr
    assert CANARY not in refused.stdout + refused.stderr


# arq is pinned, and worker/doorbell/arq_worker.py was written against these methods: it overrides them or
# relies on how they do it. Where one has changed, read both side by side first.
METHODS_OF_ARQ = {
    "main": "45ca1591c9717466eec76e17fa958f84acf6085103d692a84ee25d9904e7f8fc",
    "close": "5bcc9cb35668082910200a680f052cc5d36a8ce3b3c04a95ef32c14ebd7daaa1",
    "handle_sig_wait_for_completion": "8f161d86834cc74ee2293cf004c5456c4c01614d651e6daa03f5d7d81863435f",
}


@pytest.mark.parametrize("method", METHODS_OF_ARQ)
def test_arq_is_the_one_that_the_worker_was_written_for(method: str) -> None:
    source = inspect.getsource(getattr(Worker, method))
    assert hashlib.sha256(source.encode()).hexdigest() == METHODS_OF_ARQ[method]
