"""However long the tables are, what the command reads is read by an index or bounded."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from pydantic import SecretStr
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import Settings
from shared.status.collection import read
from shared.status.look import look
from shared.status.session import CAREFULLY, engine_of
from tests.api.recording import Json
from tests.api.test_plans import FILL

RUNS = """
    INSERT INTO project_collections (project_id, collection_id)
    SELECT project_id, collection_id FROM collections;
    INSERT INTO audit_runs
        (status, verdict, requested_by, repair, started_at, heartbeat_at, finished_at, compared, missing)
    SELECT 'finished', 'drift', 'schedule', false, now(), now(), now() - n * interval '1 minute', 20000, 1
    FROM generate_series(1, 5000) AS n;
    INSERT INTO audit_findings (audit_run_id, collection_id, project_id, kind)
    SELECT id, 'c' || n, 'p1', 'missing' FROM audit_runs, generate_series(1, 4) AS n;
    INSERT INTO worker_processes (name) SELECT 'host' FROM generate_series(1, 2000);
    ANALYZE;
"""


@contextmanager
def remembered(engine: AsyncEngine) -> Iterator[list[tuple[str, Json]]]:
    sent: list[tuple[str, Json]] = []

    def remember(_connection: object, _cursor: object, statement: str, parameters: Json, *_: object) -> None:
        if not statement.startswith(("SET", "SAVEPOINT", "RELEASE", "ROLLBACK")):
            sent.append((statement, parameters))

    event.listen(engine.sync_engine, "before_cursor_execute", remember)
    yield sent


async def test_no_statement_of_a_look_reads_a_table_to_its_end(
    sql: asyncpg.Connection, database_url: str
) -> None:
    await sql.execute("DELETE FROM projects")
    await sql.execute(FILL)
    await sql.execute(RUNS)
    settings = Settings(database_url=SecretStr(database_url), redis_url=SecretStr("redis://127.0.0.1:1"))
    async with engine_of(settings) as engine:
        with remembered(engine) as sent:
            facts = await look(engine)
            found = await read(engine, "c1")
    assert (facts.unknown, found.unknown) == ({}, {})
    assert facts.waiting == 20_000
    assert found.findings
    assert len(sent) > 20
    async with sql.transaction():
        await sql.execute(str(CAREFULLY))
        for statement, parameters in sent:
            plan = "\n".join(row[0] for row in await sql.fetch(f"EXPLAIN {statement}", *parameters))
            assert "Seq Scan on" not in without_the_servers_own(plan), f"{statement}\n{plan}"


def without_the_servers_own(plan: str) -> str:
    return "\n".join(line for line in plan.splitlines() if "Seq Scan on pg_" not in line)
