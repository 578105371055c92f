"""Captured writes are counted once, logged, kept by the minute, and shown."""

import asyncio

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared.status.figures import lines
from shared.status.look import look
from tests.audit.pairs import audited
from tests.capture.conftest import Capture
from tests.capture.writers import insert
from worker.audit.findings import first_findings
from worker.audit.listing import diff
from worker.capture.counting import CaptureUpkeep, Counted
from worker.dashboard.troubles import Troubles

WRITES = 20
KEPT = """
    SELECT role, application, operation, sum(writes)::int AS writes FROM captured_counts
    GROUP BY role, application, operation ORDER BY operation
"""
LEFT = "SELECT count(*) FROM captured_writes"
LINE = {
    "event": "writes_captured",
    "level": "warning",
    "application": "psql",
    "operation": "update",
    "writes": 3,
    "last_at": "2026-11-30T12:00:00.000000Z",
}


@pytest.fixture
async def bypassed(sql: asyncpg.Connection, capture: Capture) -> str:
    """Twenty collections that psql inserted, and one that it updated; return its role."""
    await capture("count")
    await sql.execute("SET application_name = 'psql'")
    for number in range(WRITES):
        await sql.execute(insert(f"c{number:02}"))
    await sql.execute("UPDATE collections SET description = 'x' WHERE collection_id = 'c00'")
    role: str = await sql.fetchval("SELECT session_user")
    return role


async def test_who_wrote_past_the_outbox_is_logged_and_kept_by_the_minute(
    bypassed: str, sql: asyncpg.Connection, engine: AsyncEngine
) -> None:
    watched: list[Counted] = []
    with capture_logs() as logged:
        await CaptureUpkeep(engine, watched.append).tend()
    said = [
        (line["role"], line["application"], line["operation"], line["writes"])
        for line in logged
        if line["event"] == "writes_captured"
    ]
    expected = [(bypassed, "psql", "insert", WRITES), (bypassed, "psql", "update", 1)]
    assert said == expected
    assert [(one.role, one.application, one.operation, one.writes) for one in watched] == expected
    assert [tuple(row) for row in await sql.fetch(KEPT)] == expected
    assert await sql.fetchval(LEFT) == 0
    last = await sql.fetchrow("SELECT operation FROM captured_writers WHERE collection_id = 'c00'")
    assert tuple(last) == ("update",)


@pytest.mark.usefixtures("bypassed")
async def test_workers_that_count_at_once_count_each_write_once(
    sql: asyncpg.Connection, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.capture.counting.ROWS", 3)
    upkeeps = [CaptureUpkeep(engine) for _ in range(4)]
    while await sql.fetchval(LEFT):
        await asyncio.gather(*(upkeep.count_chunk() for upkeep in upkeeps))
    assert sum(row["writes"] for row in await sql.fetch(KEPT)) == WRITES + 1


@pytest.mark.usefixtures("bypassed")
async def test_counts_go_after_thirty_days(sql: asyncpg.Connection, engine: AsyncEngine) -> None:
    await CaptureUpkeep(engine).tend()
    older = "UPDATE captured_counts SET minute = minute - interval '31 days' WHERE operation = 'insert'"
    await sql.execute(older)
    await sql.execute("UPDATE captured_writers SET captured_at = captured_at - interval '31 days'")
    await CaptureUpkeep(engine).tend()
    assert [row["operation"] for row in await sql.fetch(KEPT)] == ["update"]
    assert await sql.fetchval("SELECT count(*) FROM captured_writers") == 0


async def test_an_audit_names_the_captured_writer_of_a_finding(
    bypassed: str, sql: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await CaptureUpkeep(engine).tend()
    await sql.execute("DELETE FROM captured_writers WHERE collection_id = 'c01'")
    run = await audited(engine)
    updated, unseen, *_ = findings = await first_findings(engine, run.id, WRITES)
    assert updated.writer.startswith(f"{bypassed} (psql) update ")
    assert unseen.writer == ""
    said = [line.plain for line in diff(findings[:2]) if "past the outbox" in line.plain]
    assert said == [f"written past the outbox by {updated.writer}"]


def test_the_dashboard_shows_each_writer_past_the_outbox_as_a_trouble_of_its_own() -> None:
    troubles = Troubles()
    for role in ("monolith", "dba", "monolith"):
        troubles.take(LINE | {"role": role}, at=1.0)
    shown = sorted((one.count, one.fields["role"]) for one in troubles.shown())
    assert shown == [(1, "dba"), (2, "monolith")]


async def test_status_shows_the_mode_and_who_wrote_past_the_outbox_counted_or_not(
    bypassed: str, sql: asyncpg.Connection, engine: AsyncEngine, capture: Capture
) -> None:
    for _ in range(2):
        shown = [line for line in lines(await look(engine)) if line.startswith("capture")]
        assert len(shown) == 1
        assert "count; past the outbox in 24 h:" in shown[0]
        assert f"{bypassed} (psql), insert 20 times, last " in shown[0]
        await CaptureUpkeep(engine).tend()
    await sql.execute("ALTER TABLE collections DISABLE TRIGGER collection_sync_capture_update")
    facts = await look(engine)
    assert any("triggers of it are gone or disabled" in line for line in lines(facts))
    await capture(None)
    await sql.execute("DELETE FROM captured_counts")
    assert any(line.split() == ["capture", "not", "installed"] for line in lines(await look(engine)))
