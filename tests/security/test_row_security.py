"""Row-level security that hides rows from us is an error, and never a clean audit of what is left."""

import asyncio

import asyncpg
import pytest

from tests.forked import run
from tests.legacy_rows import seed
from tests.processes import environment

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
