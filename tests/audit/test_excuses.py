"""What excuses a difference: an event that can still change the pair, and nothing else."""

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import Settings
from tests.audit.pairs import audited, found, put_legacy, put_pair
from tests.audit.test_command import run_audit
from tests.audit.test_repair import relaying
from tests.draining import drain
from tests.drift import drift
from tests.processes import environment
from tests.versions.later import append_later
from tests.worker.events import append_raw

GUARD = """
    INSERT INTO applied_versions (collection_id, version, project_id, is_deleted)
    VALUES ($1, $2, 'p1', false)
"""


async def test_an_event_that_is_older_than_what_was_applied_excuses_nothing(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_pair(seeded, "c1", research_context="differs")
    event_id = await append_raw(seeded, "c1")
    await seeded.execute(GUARD, "c1", event_id)
    one = await audited(engine)
    assert (one.verdict, one.mismatched, one.pending) == ("drift", 1, 0)
    assert await found(seeded) == {"c1": "mismatched"}

    await seeded.execute("UPDATE applied_versions SET version = $1", event_id - 1)
    one = await audited(engine)
    assert (one.verdict, one.mismatched, one.pending) == ("pending", 0, 1)


async def test_events_of_an_unknown_version_prove_nothing_and_hide_nothing(
    settings: Settings, seeded: asyncpg.Connection
) -> None:
    env = environment(settings.database_url.get_secret_value(), settings.redis_url.get_secret_value())
    await put_pair(seeded, "c1", research_context="differs")
    await put_legacy(seeded, "c2")
    await append_later(seeded, "c1", version=9)
    for source in ("api", "repair", "backfill"):
        await append_later(seeded, "c2", version=9, source=source)
    for arguments in (["--json"], ["--json", "--repair"]):
        ended = await run_audit(env, *arguments)
        assert (ended.code, ended.result["verdict"], ended.result["pending"]) == (1, "incomplete", 2)
        assert "2 pairs differ, and for them only events of a later version wait" in ended.result["error"]
    assert await seeded.fetchval("SELECT count(*) FROM outbox_events WHERE source = 'repair'") == 1
    person = await run_audit(env)
    assert "only events of a later version wait" in person.stdout

    await seeded.execute("DELETE FROM outbox_events WHERE schema_version > 1")
    assert (await run_audit(env, "--json")).result["verdict"] == "drift"


async def test_beside_drift_they_are_told_of_too_and_stay_when_it_is_mended(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_pair(seeded, "c1", research_context="differs")
    await append_later(seeded, "c1", version=9)
    await put_legacy(seeded, "missing")
    one = await audited(engine)
    assert (one.verdict, one.missing, one.pending) == ("drift", 1, 1)
    assert "1 pairs differ, and for them only events of a later version wait" in (one.error or "")
    async with relaying(engine):
        one = await audited(engine, repair=True)
    assert (one.verdict, one.repaired) == ("incomplete", 1)
    assert await drift(seeded) == ["c1"]


async def test_what_agrees_or_has_a_known_event_as_well_is_not_counted_among_them(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_pair(seeded, "agrees")
    await append_later(seeded, "agrees", version=9)
    await put_pair(seeded, "both", research_context="differs")
    await append_later(seeded, "both", version=1)
    await append_later(seeded, "both", version=9)
    assert (await audited(engine)).verdict == "pending"
    await drain(engine)
    assert (await audited(engine)).verdict == "in_sync"


@pytest.mark.parametrize("version", [1, 9])
async def test_of_a_row_without_a_collection_too_an_event_must_be_claimable(
    engine: AsyncEngine, seeded: asyncpg.Connection, version: int
) -> None:
    await put_pair(seeded, "c1")
    await append_later(seeded, "c1", version=version)
    await seeded.execute("SET session_replication_role = replica; DELETE FROM collections")
    assert (await audited(engine)).verdict == ("pending" if version == 1 else "incomplete")
