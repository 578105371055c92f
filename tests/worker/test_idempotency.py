"""Keys of creations are forgotten after a day, some at a time, and none before."""

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from worker.idempotency import PRUNE, KeyUpkeep

INSERT = """
    INSERT INTO idempotency_keys (user_id, project_id, key, fingerprint, answer, created_at)
    SELECT 'u', 'p', $1 || n, '', '{}', now() - make_interval(hours => $2, secs => $3::int - n)
    FROM generate_series(1, $3::int) n
"""
LEFT = "SELECT array_agg(key ORDER BY key) FROM idempotency_keys"


async def test_keys_older_than_a_day_go_and_the_others_stay(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute(INSERT, "young", 23, 2)
    await sql.execute(INSERT, "old", 25, 3)
    upkeep = KeyUpkeep(engine)
    with capture_logs() as lines:
        await upkeep.tend()
        await upkeep.tend()  # it is not a minute later
    assert [(line["event"], line["keys"]) for line in lines] == [("idempotency_keys_pruned", 3)]
    assert await sql.fetchval(LEFT) == ["young1", "young2"]
    assert await upkeep.prune() == 0


async def test_a_pass_is_bounded_and_takes_the_oldest_first(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.idempotency.ROWS", 2)
    await sql.execute(INSERT, "k", 25, 5)
    upkeep = KeyUpkeep(engine)
    assert await upkeep.prune() == 2
    assert await sql.fetchval(LEFT) == ["k3", "k4", "k5"]
    assert [await upkeep.prune() for _ in range(3)] == [2, 1, 0]


async def test_a_pass_reads_by_the_index_of_times(sql: asyncpg.Connection) -> None:
    await sql.execute(INSERT, "young", 1, 20_000)
    await sql.execute("ANALYZE idempotency_keys")
    statement = PRUNE.text.replace(":hours", "24").replace(":rows", "10000")
    plan = "\n".join(row[0] for row in await sql.fetch(f"EXPLAIN {statement}"))
    assert "Seq Scan" not in plan, plan
    assert plan.count("idempotency_keys_by_time") == 2, plan
