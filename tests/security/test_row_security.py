"""Row-level security that hides rows from us is an error, and never a clean audit of what is left."""

import asyncio
import contextlib

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from api.main import create_app
from shared.postgres.faults import HIDDEN_ROWS
from shared.settings import Settings
from tests.api import recording
from tests.api.clients import OWNER, SEEDED, started
from tests.audit.pairs import audited
from tests.forked import run
from tests.legacy_rows import seed, set_collection
from tests.processes import environment, running_worker
from tests.security.as_role import engine_of

HIDING = {
    "all": "CREATE POLICY monolith ON {table} FOR ALL TO postgres USING (true)",
    "a part": "CREATE POLICY part ON {table} FOR ALL TO PUBLIC USING (collection_id < 'm')",
}
TABLES = ("collections", "project_collections", "outbox_events")
COMMANDS = {
    "repair": ["-m", "worker.audit", "--repair"],
    "backfill": ["-m", "worker.backfill"],
    "phase 1": ["migrations/phase1_backfill_project_collections.py"],
}


@pytest.mark.parametrize(
    ("command", "table", "policy"),
    [
        *((["-m", "worker.audit"], table, policy) for table in TABLES for policy in HIDING.values()),
        *((command, "collections", HIDING["a part"]) for command in COMMANDS.values()),
    ],
)
async def test_a_command_whose_role_may_not_see_every_row_says_so(
    command: list[str], table: str, policy: str, urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    await seed(sql)
    await sql.execute(
        "INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)"
        " SELECT name, 'p1', name, 'owner', true FROM unnest(ARRAY['a', 'z']) AS name"
    )
    policy = policy.replace("collection_id", "aggregate_id") if table == "outbox_events" else policy
    await sql.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; {policy.format(table=table)}")
    done = await asyncio.to_thread(run, command, environment(urls["operator"], "redis://127.0.0.1:1"))
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "BYPASSRLS" in said
    assert "Traceback" not in said
    assert "n sync" not in said


@pytest.mark.parametrize("policy", HIDING.values(), ids=HIDING)
async def test_an_audit_whose_role_may_not_see_every_row_proves_nothing(
    policy: str, urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    await seed(sql)
    await sql.execute(
        "INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)"
        " VALUES ('z', 'p1', 'never shown', 'owner', true)"
    )
    await sql.execute(
        f"ALTER TABLE collections ENABLE ROW LEVEL SECURITY; {policy.format(table='collections')}"
    )
    async with engine_of(urls["operator"]) as engine:
        with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
            await audited(engine)
    run = await sql.fetchrow("SELECT status, verdict, error FROM audit_runs")
    assert tuple(run) == ("failed", "incomplete", HIDDEN_ROWS)


@pytest.mark.parametrize("table", ["collections", "outbox_events", "applied_versions"])
async def test_an_api_whose_role_may_not_see_every_row_answers_503_and_logs_why(
    table: str, urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    await recording.seed(sql)
    await sql.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    settings = Settings(database_url=SecretStr(urls["api"]), redis_url=SecretStr("redis://127.0.0.1:1"))
    with capture_logs() as lines:
        async with started(create_app(settings)) as client:
            answer = await client.get(f"{SEEDED}/sync", headers=OWNER)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    (said,) = [line for line in lines if line["event"] == "database_unavailable"]
    assert (said["hint"], said["log_level"]) == (HIDDEN_ROWS, "error")


async def test_a_worker_whose_role_may_not_see_every_row_logs_why(
    urls: dict[str, str], redis_url: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    await set_collection(engine, "c1", "text")
    await sql.execute("ALTER TABLE project_collections ENABLE ROW LEVEL SECURITY")
    async with running_worker(environment(urls["worker"], redis_url)) as worker:
        await worker.wait_for("batch_failed")
        await worker.wait_for("audit_finished")
    assert {line["hint"] for line in worker.logged("batch_failed")} == {HIDDEN_ROWS}
    (audited, *_) = worker.logged("audit_finished")
    assert (audited["verdict"], audited["error"]) == ("incomplete", HIDDEN_ROWS)
    assert await sql.fetchval("SELECT count(*) FROM outbox_dead_letters") == 0
