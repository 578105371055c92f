"""An event of a version that a worker does not know waits for one that does."""

import itertools

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared.events import NEWEST_KNOWN_VERSION, PAYLOAD_VERSION, Source
from shared.lanes import lane_of, lanes_up_to, version_of
from shared.settings import Settings
from tests.audit.pairs import audited
from tests.counters.draining import drain
from tests.drift import drift
from tests.legacy_rows import set_collection, target_rows
from tests.versions.later import append_later, settle_knowing, waiting
from tests.worker.events import append_raw, outcomes
from worker.relay.outcomes import Outcome
from worker.telemetry.metrics import heartbeat_gauges
from worker.vitals import unknown_versions
from worker.vitals.heartbeat import Heart, Heartbeat

LATER = NEWEST_KNOWN_VERSION + 1
LANES_BY_SOURCE = """
    ALTER TABLE outbox_events DROP COLUMN lane;
    ALTER TABLE outbox_events ADD COLUMN lane smallint NOT NULL
        GENERATED ALWAYS AS (CASE source WHEN 'api' THEN 0 WHEN 'repair' THEN 1 ELSE 2 END) STORED;
    CREATE INDEX outbox_events_claim_order ON outbox_events (lane, id)
"""


async def shown(sql: asyncpg.Connection, collection_id: str) -> list[str]:
    return [row["research_context"] for row in await target_rows(sql, collection_id)]


async def test_postgresql_and_the_code_agree_on_lanes(seeded: asyncpg.Connection) -> None:
    for source, version in itertools.product(Source, range(1, 5)):
        lane = await seeded.fetchval(
            "INSERT INTO outbox_events (aggregate_id, event_type, source, payload, schema_version)"
            " VALUES ('c1', 'collection.updated', $1, '{}', $2) RETURNING lane",
            source,
            version,
        )
        assert lane == lane_of(source, version)
        assert version_of(lane) == version


@pytest.mark.parametrize("version", range(1, 5))
def test_the_lanes_up_to_a_version_lie_side_by_side_live_ones_first(version: int) -> None:
    lanes = lanes_up_to(version)
    assert list(lanes) == list(range(1 - version, 2 * version + 1))
    assert {lane for lane, name in lanes.items() if name == "live"} == set(range(1 - version, 1))
    assert (lanes[0], lanes[1], lanes[2]) == ("live", "repair", "backfill")


async def test_an_event_that_says_no_version_is_of_version_1(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    """So are those of the release that knew of none."""
    await set_collection(engine, "c1", "of this release")
    assert await seeded.fetchval("SELECT schema_version FROM outbox_events") == PAYLOAD_VERSION
    event_id = await append_raw(seeded, "c1", research_context="of the release before")
    assert await seeded.fetchval("SELECT schema_version FROM outbox_events WHERE id = $1", event_id) == 1
    assert (await outcomes(engine))[event_id] is Outcome.APPLIED
    assert await shown(seeded, "c1") == ["of the release before"]


async def test_a_version_that_is_none_is_refused(seeded: asyncpg.Connection) -> None:
    for version in (0, -1, None):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await seeded.execute(
                "INSERT INTO outbox_events (aggregate_id, event_type, source, payload, schema_version)"
                " VALUES ('c1', 'collection.updated', 'api', '{}', $1)",
                version,
            )


async def test_fields_that_a_known_version_does_not_have_are_passed_over(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", "as it is")
    await outcomes(engine)
    event_id = await append_raw(
        seeded, "c1", research_context="as it was", shelf="north", nested={"project_id": 7}, created=[None]
    )
    assert await outcomes(engine) == {event_id: Outcome.APPLIED}
    assert await shown(seeded, "c1") == ["as it was"]


@pytest.mark.parametrize("source", list(Source))
async def test_an_event_of_a_later_version_waits_for_a_worker_that_knows_it(
    engine: AsyncEngine, seeded: asyncpg.Connection, source: Source
) -> None:
    await set_collection(engine, "c1", "as it is")
    await outcomes(engine)
    await seeded.execute("UPDATE collections SET description = 'later' WHERE collection_id = 'c1'")
    event_id = await append_later(seeded, "c1", version=LATER, source=source)
    known = await set_collection(engine, "c2", "of this version")

    assert await outcomes(engine) == {known: Outcome.APPLIED}
    assert await outcomes(engine) == {}
    assert await waiting(seeded) == [event_id]
    assert (await shown(seeded, "c1"), await shown(seeded, "c2")) == (["as it is"], ["of this version"])

    assert await settle_knowing(engine, LATER) == {event_id: Outcome.APPLIED}
    assert await shown(seeded, "c1") == ["later"]
    assert await drift(seeded) == []


async def test_where_every_version_has_the_same_lanes_a_worker_applies_what_it_does_not_know(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    """The column alone holds back no worker, least of all one of the release that does not know of it."""
    await seeded.execute(LANES_BY_SOURCE)
    await set_collection(engine, "c1", "as it is")
    event_id = await append_later(seeded, "c1", version=LATER)
    assert event_id in await outcomes(engine)


async def test_around_events_of_a_later_version_the_newest_state_wins(
    engine: AsyncEngine, seeded: asyncpg.Connection, settings: Settings
) -> None:
    """Old and new processes write the same collections while both run."""
    for name in ("before", "after", "deleted"):
        await set_collection(engine, name, "first")
    known = await set_collection(engine, "before", "known")  # then the later version
    await seeded.execute("UPDATE collections SET description = 'unknown' WHERE collection_id <> 'after'")
    overtaking = await append_later(seeded, "before", version=LATER)
    overtaken = await append_later(seeded, "after", version=LATER)
    await set_collection(engine, "after", "known")
    deleting = await append_later(seeded, "deleted", version=LATER)
    await set_collection(engine, "deleted", is_active=False)

    await drain(settings)
    assert known not in await waiting(seeded)
    assert await waiting(seeded) == [overtaking, overtaken, deleting]
    assert (await shown(seeded, "before"), await shown(seeded, "after")) == (["known"], ["known"])

    settled = await settle_knowing(engine, LATER)
    assert settled == {
        overtaking: Outcome.APPLIED,
        overtaken: Outcome.STALE,
        deleting: Outcome.STALE,
    }
    assert (await shown(seeded, "before"), await shown(seeded, "after")) == (["unknown"], ["known"])
    assert await shown(seeded, "deleted") == []
    assert await drift(seeded) == []


async def test_what_waits_for_a_later_worker_is_no_drift_to_the_audit_and_no_proof(
    engine: AsyncEngine, seeded: asyncpg.Connection, settings: Settings
) -> None:
    await set_collection(engine, "c1", "as it is")
    await drain(settings)
    await seeded.execute("UPDATE collections SET description = 'later' WHERE collection_id = 'c1'")
    await append_later(seeded, "c1", version=LATER)
    await drain(settings)
    run = await audited(engine)
    assert (run.verdict, run.pending, run.mismatched) == ("incomplete", 1, 0)


async def test_a_worker_says_that_they_wait_what_to_do_and_when_none_waits_any_more(
    engine: AsyncEngine, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_collection(engine, "c1")
    await outcomes(engine)
    heart = Heart(engine, "host:1")
    with capture_logs() as before:
        await heart.beat()
    assert [line["event"] for line in before] == ["worker_heartbeat"]

    await append_later(seeded, "c1", version=LATER)
    await append_later(seeded, "c1", version=LATER + 3, source="backfill")
    with capture_logs() as lines:
        await heart.beat()
        await heart.beat()
    warning, first, second = lines
    assert (warning["event"], warning["log_level"]) == ("unknown_versions_wait", "warning")
    assert (warning["events"], warning["newest_version"]) == (2, LATER + 3)
    assert warning["hint"].startswith(f"deploy a worker that knows version {LATER + 3} ")
    for line in (first, second):
        assert (line["pending_unknown_version"], line["pending_live"], line["oldest_live_seconds"]) == (
            2,
            0,
            0,
        )

    monkeypatch.setattr(unknown_versions, "REMIND_SECONDS", 0.0)
    with capture_logs() as again:
        await heart.beat()
    assert [line["event"] for line in again] == ["unknown_versions_wait", "worker_heartbeat"]

    await settle_knowing(engine, LATER + 3)
    with capture_logs() as after:
        await heart.beat()
    assert [line["event"] for line in after] == ["unknown_versions_settled", "worker_heartbeat"]
    assert after[1]["pending_unknown_version"] == 0


async def test_the_metrics_count_them(engine: AsyncEngine, seeded: asyncpg.Connection) -> None:
    await set_collection(engine, "c1")
    await append_later(seeded, "c1", version=LATER)
    beaten: list[Heartbeat] = []
    await Heart(engine, "host:1", watch=beaten.append).beat()
    exposed = {
        metric.name: [sample.value for sample in metric.samples]
        for metric in heartbeat_gauges(beaten[0], None)
    }
    assert exposed["collection_sync_unknown_version_events"] == [1]
