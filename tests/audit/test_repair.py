"""Repair: through the outbox alone, newest state only, and believed only when it was compared again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared.audit_runs import AuditOptions
from shared.redis.client import open_redis
from shared.redis.deployment import Deployment
from shared.redis.doorbell import Doorbell
from tests.audit.pairs import audited, found, put_legacy, put_pair, put_synced, put_target
from tests.backfill.driving import until_waiting
from tests.doorbell.place import queued
from tests.draining import drain, run_once
from tests.drift import drift
from tests.legacy_rows import set_collection, target_rows
from tests.processes import HANG_SECONDS
from worker.audit import repair, run
from worker.audit.findings import Finding
from worker.audit.run import audit
from worker.settled import until_settled

OUTCOMES = "SELECT collection_id, outcome FROM audit_findings ORDER BY collection_id"
EVENTS = "SELECT aggregate_id, event_type FROM outbox_events WHERE source = 'repair' ORDER BY aggregate_id"


@contextlib.asynccontextmanager
async def relaying(engine: AsyncEngine) -> AsyncIterator[None]:
    """Relay as a worker does, while the block lasts."""
    going = True

    async def relay() -> None:
        while going:
            await run_once(engine)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(relay())
    try:
        yield
    finally:
        going = False
        await task


async def outcomes(connection: asyncpg.Connection) -> dict[str, str | None]:
    return {row["collection_id"]: row["outcome"] for row in await connection.fetch(OUTCOMES)}


async def test_what_hand_run_sql_broke_is_mended_and_compared_again(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    for name in ("text", "row", "deleted", "target", "fine"):
        await set_collection(engine, name, "as the API wrote it")
    await drain(engine)
    await seeded.execute("""
        UPDATE collections SET description = 'by hand' WHERE collection_id = 'text';
        DELETE FROM project_collections WHERE collection_id = 'row';
        UPDATE collections SET is_active = false WHERE collection_id = 'deleted';
        UPDATE project_collections SET updated_at = NULL WHERE collection_id = 'target';
        UPDATE project_collections SET tags = '["kept"]' WHERE collection_id = 'text';
    """)

    with capture_logs() as lines:
        async with relaying(engine):
            one = await audited(engine, repair=True, slices=2)

    assert await found(seeded) == {
        "text": "mismatched", "row": "missing", "deleted": "orphaned", "target": "mismatched"
    }  # fmt: skip
    assert (one.verdict, one.missing, one.mismatched, one.orphaned, one.repaired) == ("repaired", 1, 2, 1, 4)
    assert set((await outcomes(seeded)).values()) == {"repaired"}
    assert await drift(seeded) == []
    [row] = await target_rows(seeded, "text")
    assert (row["research_context"], row["tags"]) == ("by hand", '["kept"]')
    after = {line["collection_id"]: line for line in lines if line["event"] == "audit_finding_repaired"}
    assert {name: (line["kind"], line["outcome"]) for name, line in after.items()} == {
        name: (kind, "repaired") for name, kind in (await found(seeded)).items()
    }
    assert after["text"]["target"]["research_context"] == "by hand"
    assert after["deleted"]["target"] is None
    assert (await audited(engine, repair=True)).verdict == "in_sync"


async def test_without_a_worker_the_repair_is_pending_and_no_success(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_legacy(seeded, "a")

    one = await audited(engine, repair=True, patience_seconds=0.3)

    assert (one.verdict, one.missing, one.repaired) == ("drift", 1, 0)
    assert one.error == "1 wait for their event: is a worker running?"
    assert await outcomes(seeded) == {"a": "pending"}
    again = await audited(engine, repair=True)  # its event waits: no second one is appended
    assert (again.verdict, again.pending, again.found) == ("pending", 1, 0)
    assert await seeded.fetchval("SELECT count(*) FROM outbox_events") == 1


async def test_a_repair_whose_event_dies_still_differs(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    for name in ("poison", "fine"):
        await put_legacy(seeded, name)
    await seeded.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'refused'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON project_collections FOR EACH ROW
            WHEN (NEW.collection_id = 'poison') EXECUTE FUNCTION refuse()
    """)

    async with relaying(engine):
        one = await audited(engine, repair=True)

    assert (one.verdict, one.missing, one.repaired) == ("drift", 2, 1)
    assert await outcomes(seeded) == {"fine": "repaired", "poison": "still_differs"}
    assert "dead_letters show" in (one.error or "")


async def test_a_row_of_no_collection_cannot_be_repaired_and_the_reason_is_told(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await seeded.execute("SET session_replication_role = replica")
    await put_target(seeded, "nowhere")
    await put_legacy(seeded, "missing")

    async with relaying(engine):
        one = await audited(engine, repair=True)

    assert (one.verdict, one.orphaned, one.missing, one.repaired) == ("drift", 1, 1, 1)
    assert await outcomes(seeded) == {"missing": "repaired", "nowhere": "still_differs"}
    assert "belong to no collection" in (one.error or "")
    assert "dead letters" not in (one.error or "")


def meanwhile(monkeypatch: pytest.MonkeyPatch, *steps: Awaitable[object]) -> None:
    """Let these happen between finding and repair."""
    right = repair.append_repairs

    async def late(engine: AsyncEngine, run_id: int, page: list[Finding]) -> int:
        for step in steps:
            await step
        return await right(engine, run_id, page)

    monkeypatch.setattr(run, "append_repairs", late)


async def test_a_collection_deleted_between_finding_and_repair_does_not_come_back(
    engine: AsyncEngine, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_legacy(seeded, "a")
    meanwhile(monkeypatch, set_collection(engine, "a", is_active=False), drain(engine))

    async with relaying(engine):
        one = await audited(engine, repair=True)

    assert (one.verdict, one.missing) == ("repaired", 1)
    assert await target_rows(seeded, "a") == []
    assert (await audited(engine)).verdict == "in_sync"


async def test_a_collection_brought_back_between_finding_and_repair_keeps_its_row(
    engine: AsyncEngine, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_legacy(seeded, "a", is_active=False)
    await put_target(seeded, "a")
    meanwhile(monkeypatch, set_collection(engine, "a", "back again"), drain(engine))

    async with relaying(engine):
        one = await audited(engine, repair=True)

    assert (one.verdict, one.orphaned) == ("repaired", 1)
    [row] = await target_rows(seeded, "a")
    assert row["research_context"] == "back again"


async def test_a_repair_waits_for_a_deletion_under_way_and_then_follows_it(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_legacy(seeded, "a")
    async with seeded.transaction():
        await seeded.execute("UPDATE collections SET is_active = false WHERE collection_id = 'a'")
        task = asyncio.create_task(audited(engine, repair=True, patience_seconds=0.1))
        await until_waiting(seeded)
    one = await task

    events = await seeded.fetch(EVENTS)
    assert [tuple(row) for row in events] == [("a", "collection.deleted")]
    assert (one.missing, one.verdict) == (1, "repaired")  # nothing is to be there, and nothing is
    await drain(engine)
    assert await target_rows(seeded, "a") == []


async def test_a_collection_that_vanished_after_its_repair_counts_as_mended(
    engine: AsyncEngine, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_legacy(seeded, "a")
    right = until_settled

    async def vanish(*arguments: Any, **options: Any) -> bool:  # noqa: ANN401 - passed on
        settled = await right(*arguments, **options)
        await seeded.execute("DELETE FROM collections WHERE collection_id = 'a'")
        return settled

    monkeypatch.setattr(run, "until_settled", vanish)

    async with relaying(engine):
        one = await audited(engine, repair=True)

    assert (one.verdict, one.repaired) == ("repaired", 1)


async def test_a_write_that_waits_when_the_repair_is_verified_is_no_failure(
    engine: AsyncEngine, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_legacy(seeded, "a")
    right = repair.verify
    seen: list[str | None] = []

    async def busy(*arguments: Any) -> None:  # noqa: ANN401 - passed on
        if len(seen) < 2:
            await set_collection(engine, "a", f"text {len(seen)}")
        else:
            await drain(engine)
        await right(*arguments)
        seen.append((await outcomes(seeded))["a"])

    async def settle(*_: object, **__: object) -> bool:
        await drain(engine)
        return True

    monkeypatch.setattr(run, "verify", busy)
    monkeypatch.setattr(run, "until_settled", settle)

    one = await audited(engine, repair=True)

    assert seen == ["pending", "pending", "repaired"]
    assert (one.verdict, one.repaired) == ("repaired", 1)


async def test_links_of_a_repaired_collection_to_other_projects_stay(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_legacy(seeded, "a")
    await put_target(seeded, "a", project_id="p2", research_context="another view")

    async with relaying(engine):
        one = await audited(engine, repair=True)

    assert one.verdict == "repaired"
    rows = await target_rows(seeded, "a")
    assert [(row["project_id"], row["research_context"]) for row in rows] == [
        ("p1", "text"),
        ("p2", "another view"),
    ]


async def test_only_the_project_asked_for_is_repaired(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_legacy(seeded, "here")
    await put_legacy(seeded, "elsewhere", project_id="p2")

    async with relaying(engine):
        one = await audited(engine, repair=True, project_id="p1")

    assert (one.verdict, one.missing, one.repaired) == ("repaired", 1, 1)
    assert await drift(seeded) == ["elsewhere"]


async def test_more_findings_than_are_listed_otherwise_are_all_repaired(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_synced(seeded, 2_000)
    await seeded.execute("DELETE FROM project_collections")

    async with relaying(engine):
        one = await audited(engine, repair=True, slices=2)

    assert (one.verdict, one.missing, one.repaired) == ("repaired", 1_800, 1_800)
    assert len(await found(seeded)) == 1_800
    assert await drift(seeded) == []


async def test_a_repair_in_many_slices_verifies_each_key(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_synced(seeded, 60)
    await seeded.execute("UPDATE project_collections SET research_context = 'x' WHERE id % 3 = 0")
    await put_pair(seeded, "untouched")

    async with relaying(engine):
        one = await audited(engine, repair=True, slices=16)

    assert (one.verdict, one.mismatched, one.repaired) == ("repaired", 18, 18)
    assert one.compared == one.planned == 61


async def test_the_doorbell_rings_for_repairs(
    engine: AsyncEngine, seeded: asyncpg.Connection, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.redis.doorbell.REDIS_TIMEOUT_SECONDS", HANG_SECONDS)
    monkeypatch.setattr("shared.redis.client.REDIS_TIMEOUT_SECONDS", HANG_SECONDS)
    await put_legacy(seeded, "a")
    redis: Redis = open_redis(redis_url)
    doorbell = Doorbell(redis, Deployment.of(engine))
    ringing = asyncio.create_task(doorbell.run())

    await audit(
        engine,
        AuditOptions(repair=True),
        requested_by="command",
        interrupted=asyncio.Event(),
        doorbell=doorbell,
        patience_seconds=0.1,
    )

    async with asyncio.timeout(HANG_SECONDS):
        while await queued(redis) != 1:
            await asyncio.sleep(0.01)
    ringing.cancel()
    await asyncio.gather(ringing, return_exceptions=True)
    await redis.aclose()


async def test_an_interrupt_while_waiting_for_the_worker_ends_the_run(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_legacy(seeded, "a")
    interrupted = asyncio.Event()

    one = await audit(
        engine,
        AuditOptions(repair=True),
        requested_by="command",
        interrupted=interrupted,
        watch=lambda progress: interrupted.set() if progress.unsettled else None,
    )

    assert (one.status, one.verdict, one.error) == ("failed", "incomplete", "interrupted")
