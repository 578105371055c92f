"""A held snapshot keeps acknowledged events in the index: claims must not walk over all of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared.settings import Settings
from tests.draining import run_once
from tests.engines import COUNTS_AT_ONCE
from tests.legacy_rows import set_collection, target_rows
from tests.processes import HANG_SECONDS, environment, running_worker
from tests.race import freezing
from worker.drainer import Drainer
from worker.main import arq_settings
from worker.relay.claim import BEGINNING, BULK_LANES, ClaimedEvent, Position
from worker.relay.claim_start import TRAIL_EVENTS, ClaimStart

AFTER_CLAIM = "guard: claimed, before the guard"
APPEND = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.updated', $1, jsonb_build_object('project_id', project_id,
        'research_context', description, 'created_at', created_at, 'updated_at', updated_at)
    FROM collections
    ORDER BY collection_id
    LIMIT $2
"""
MAKE_COLLECTIONS = """
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    SELECT 'many-' || to_char(number, 'FM000000'), 'p1', '', 'told', 'owner', true
    FROM generate_series(1, $1::integer) AS number
"""
EVENTS = 2_000
LAST = f"many-{EVENTS:06}"
BATCH = EVENTS // 20
CLAIMS_PER_FULL_CLAIM = 10
MANY_EVENTS = 10_000  # so many that a claim that walks over them all is dear
WORKERS_SESSIONS = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ 'worker'
"""
CLAIM_ENTRIES_READ = """
    SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'outbox_events_claim_order'
"""


@asynccontextmanager
async def snapshot_held(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Be the one who left for lunch: idle in a transaction that has looked at the database once."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await connection.fetchval("SELECT count(*) FROM users")
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def uncommitted_write(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Draw the next event id for the collection `late`, and commit when the block ends."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute(
                "INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)"
                " VALUES ('late', 'p1', '', 'owner', true)"
            )
            await connection.execute(
                "INSERT INTO outbox_events (aggregate_id, event_type, source, payload) VALUES ('late',"
                ' \'collection.created\', \'api\', \'{"project_id": "p1", "research_context": "told late",'
                ' "created_at": null, "updated_at": null}\')'
            )
            yield connection
    finally:
        await connection.close()


async def applied(sql: asyncpg.Connection, collection_id: str) -> None:
    """Wait until the collection reaches the target."""
    async with asyncio.timeout(HANG_SECONDS):
        while not await target_rows(sql, collection_id):
            await asyncio.sleep(0.01)


async def require_passed_over(
    engine: AsyncEngine, sql: asyncpg.Connection, drainer: Drainer, collection_id: str
) -> None:
    """See that what is claimed later than this collection's event was there is applied, and it is not."""
    for number in range(3):
        await set_collection(engine, f"behind-{number}")
        drainer.wake_live("doorbell")
        await applied(sql, f"behind-{number}")
    assert await target_rows(sql, collection_id) == []


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep the lines of some hundred thousand events to ourselves."""
    with capture_logs():
        yield


@pytest.fixture
def claims_are_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten claims after the first, whatever it took, and let them trail few events."""
    monkeypatch.setattr("worker.relay.claim_start.DEAR_SECONDS", 0.0)
    monkeypatch.setattr("worker.relay.claim_start.TRAIL_EVENTS", BATCH // 2)


def never_from_the_beginning_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the hint a cursor: the twin that every test of late commits must convict."""
    monkeypatch.setattr("worker.relay.claim_start.REST_PER_FULL_CLAIM", float("inf"))


class CountingClaimStart(ClaimStart):
    """Claims from the beginning now and then, as the product's does, but by a count and by no clock."""

    def __init__(self) -> None:
        super().__init__()
        self.claims_since = CLAIMS_PER_FULL_CLAIM

    def note(self, start: Position, events: Sequence[ClaimedEvent], claim_seconds: float) -> None:
        super().note(start, events, claim_seconds)
        self.claims_since = 0 if start == BEGINNING and events else self.claims_since + 1
        if len(events) < BATCH:  # the drain would wait for its time
            self.claims_since = CLAIMS_PER_FULL_CLAIM

    @property
    def seconds_until_full_claim(self) -> float:
        return 0.0 if self.claims_since >= CLAIMS_PER_FULL_CLAIM else float("inf")


@pytest.fixture
def short_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIVE_BATCH", "BULK_BATCH"):
        monkeypatch.setattr(f"worker.drainer.{name}", BATCH)


async def entries_read(
    settings: Settings, sql: asyncpg.Connection, work: Callable[[AsyncEngine], Awaitable[object]]
) -> int:
    """Let the worker's own sessions do that; return how many index entries their claims read."""
    workers_engine, duties_engine = arq_settings(settings)["ctx"]["engines"]
    before: int = await sql.fetchval(CLAIM_ENTRIES_READ)
    await work(workers_engine)
    await workers_engine.dispose()  # a session reports its statistics when it ends
    await duties_engine.dispose()
    async with asyncio.timeout(HANG_SECONDS):
        while await sql.fetchval(WORKERS_SESSIONS):
            await asyncio.sleep(0.01)
    await sql.execute("SELECT pg_stat_clear_snapshot()")
    after: int = await sql.fetchval(CLAIM_ENTRIES_READ)
    return after - before


async def drain_live(engine: AsyncEngine) -> None:
    """Let one drain work alone: another one's snapshot would keep what it acknowledges."""
    drainer = Drainer(engine)
    drainer.wake_live("sweep")
    await drainer.live_settled()


async def drain_everything(engine: AsyncEngine) -> None:
    await Drainer(engine).drain("sweep")


async def entries_read_for(
    settings: Settings,
    sql: asyncpg.Connection,
    source: str,
    drain: Callable[[AsyncEngine], Awaitable[None]] = drain_everything,
) -> int:
    """Append EVENTS events and drain them; return how many index entries that read."""
    await sql.execute(MAKE_COLLECTIONS, EVENTS)
    await sql.execute(APPEND, source, EVENTS)
    read = await entries_read(settings, sql, drain)
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0
    return read


@COUNTS_AT_ONCE
@pytest.mark.usefixtures("claims_are_dear", "short_batches")
@pytest.mark.parametrize("source", ["api", "backfill"])
async def test_claims_beside_a_held_snapshot_read_a_small_multiple_of_what_they_claim(
    source: str,
    database_url: str,
    settings: Settings,
    sql: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.drainer.ClaimStart", CountingClaimStart)
    async with snapshot_held(database_url):
        assert await entries_read_for(settings, sql, source) < 10 * EVENTS


@COUNTS_AT_ONCE
@pytest.mark.usefixtures("short_batches")
async def test_without_the_hint_claims_beside_a_held_snapshot_read_everything_again_and_again(
    database_url: str, settings: Settings, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClaimStart, "choose", lambda _: BEGINNING)
    async with snapshot_held(database_url):
        assert await entries_read_for(settings, sql, "api") > 10 * EVENTS


@COUNTS_AT_ONCE
@pytest.mark.usefixtures("short_batches")
async def test_without_a_held_snapshot_claims_begin_at_the_beginning_and_read_little(
    settings: Settings, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.relay.claim_start.DEAR_SECONDS", float("inf"))
    assert await entries_read_for(settings, sql, "api", drain_live) < 4 * EVENTS


@COUNTS_AT_ONCE
async def test_a_bulk_claim_does_not_walk_over_the_live_events_that_a_snapshot_keeps(
    database_url: str, settings: Settings, sql: asyncpg.Connection
) -> None:
    await sql.execute(MAKE_COLLECTIONS, EVENTS)
    async with snapshot_held(database_url):
        await sql.execute(APPEND, "api", EVENTS)
        await sql.execute("DELETE FROM outbox_events")
        await sql.execute(APPEND, "backfill", 100)
        read = await entries_read(settings, sql, lambda engine: run_once(engine, 500, BULK_LANES))
    assert read < 200


@pytest.mark.usefixtures("claims_are_dear", "short_batches")
@pytest.mark.parametrize("is_cursor", [False, True])
async def test_a_low_id_that_commits_last_is_applied_although_claims_begin_far_behind_it(
    *,
    is_cursor: bool,
    database_url: str,
    engine: AsyncEngine,
    sql: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if is_cursor:
        never_from_the_beginning_again(monkeypatch)
    await sql.execute(MAKE_COLLECTIONS, EVENTS)
    drainer = Drainer(engine)
    async with snapshot_held(database_url):
        async with uncommitted_write(database_url):
            await sql.execute(APPEND, "api", EVENTS)
            drainer.wake("doorbell")
            await applied(sql, LAST)
        if is_cursor:
            await require_passed_over(engine, sql, drainer, "late")
        else:
            drainer.wake("doorbell")
            await applied(sql, "late")
    await drainer.stop()


@pytest.mark.usefixtures("claims_are_dear", "short_batches")
@pytest.mark.parametrize("is_cursor", [False, True])
async def test_a_low_id_that_commits_while_a_shortened_claim_is_in_hand_needs_no_other_wake_up(
    *,
    is_cursor: bool,
    database_url: str,
    engine: AsyncEngine,
    sql: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The wake-up came when the event was not yet there: the drain may not end with what it then saw."""
    is_due = False
    due = property(lambda _: 0.0 if is_due else float("inf"))
    monkeypatch.setattr(ClaimStart, "seconds_until_full_claim", due)
    await freezing.install(sql)
    await sql.execute(MAKE_COLLECTIONS, EVENTS)
    drainer = Drainer(engine)
    async with AsyncExitStack() as late_write:
        await late_write.enter_async_context(uncommitted_write(database_url))
        await sql.execute(APPEND, "api", EVENTS)
        drainer.wake_live("doorbell")
        await applied(sql, LAST)
        async with freezing.frozen(sql, AFTER_CLAIM):
            await set_collection(engine, "next")
            drainer.wake_live("doorbell")
            await freezing.arrived(sql, AFTER_CLAIM)
            await late_write.aclose()
            is_due = not is_cursor
    if is_cursor:
        await applied(sql, "next")
        await require_passed_over(engine, sql, drainer, "late")
    else:
        await applied(sql, "late")
    await drainer.stop()


@pytest.mark.usefixtures("claims_are_dear", "short_batches")
async def test_a_wake_up_does_not_wait_until_a_claim_from_the_beginning_is_due(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_from_the_beginning_again(monkeypatch)
    monkeypatch.setattr("worker.drainer.BATCH_PATIENCE_SECONDS", 10 * HANG_SECONDS)
    await sql.execute(MAKE_COLLECTIONS, EVENTS)
    await sql.execute(APPEND, "api", EVENTS)
    drainer = Drainer(engine)
    drainer.wake("doorbell")
    await applied(sql, LAST)
    for number in range(3):
        await set_collection(engine, f"c{number}")
        drainer.wake("doorbell")
        await applied(sql, f"c{number}")
    await asyncio.wait_for(drainer.stop(), HANG_SECONDS)  # nor does the end of the process


async def test_a_batch_that_failed_is_followed_by_a_claim_from_the_beginning() -> None:
    start = ClaimStart()
    start.note(BEGINNING, [], claim_seconds=60)
    assert start.seconds_until_full_claim > 60
    start.forget()
    assert start.choose() == BEGINNING


async def test_claims_from_the_beginning_take_a_twentieth_of_the_time_at_most_or_are_cheap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.relay.claim_start.time", SimpleNamespace(monotonic=lambda: 1_000.0))
    start = ClaimStart()
    start.note(BEGINNING, [], claim_seconds=0.0008)
    assert start.seconds_until_full_claim <= 0
    start.note(BEGINNING, [], claim_seconds=0.1)
    assert start.seconds_until_full_claim == pytest.approx(2)


def claimed(number: int) -> ClaimedEvent:
    return ClaimedEvent(number, "c", "p1", "collection.updated", "api", 0.0, True, True, 0.0, 0, 0)  # noqa: FBT003 - a row


async def test_a_shortened_claim_trails_what_was_claimed_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    """Late commits are milliseconds late as a rule: those are found without a claim from the beginning."""
    monkeypatch.setattr("worker.relay.claim_start.TRAIL_EVENTS", 10)
    monkeypatch.setattr("worker.relay.claim_start.TRAIL_SECONDS", float("inf"))
    start = ClaimStart()
    start.note(BEGINNING, [claimed(number) for number in range(1, 6)], claim_seconds=60)
    for number in range(6, 100):
        start.note(start.choose(), [claimed(number)], claim_seconds=60)
        distance = number - max(start.choose().id, 0)
        assert distance >= min(10, number)
        assert distance <= 20


async def test_a_shortened_claim_catches_up_after_seconds_when_there_is_little_to_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.relay.claim_start.TRAIL_SECONDS", 0)
    start = ClaimStart()
    for number in range(1, 4):
        start.note(start.choose(), [claimed(number)], claim_seconds=60)
    assert start.choose().id == 2


async def test_a_worker_applies_a_low_id_that_commits_last_within_seconds_beside_a_held_snapshot(
    settings: Settings, database_url: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    """Nothing rings for it: the sweep's claim from the beginning finds it."""
    env = environment(settings.database_url.get_secret_value(), settings.redis_url.get_secret_value())
    await sql.execute(MAKE_COLLECTIONS, MANY_EVENTS)
    async with snapshot_held(database_url):
        await sql.execute(APPEND, "api", MANY_EVENTS)
        await sql.execute("DELETE FROM outbox_events")
        async with running_worker(env):
            async with uncommitted_write(database_url):
                await sql.execute(APPEND, "api", 2 * TRAIL_EVENTS)
                last = await set_collection(engine, "last")
                await applied(sql, "last")
                assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0
            await applied(sql, "late")
        assert last > MANY_EVENTS + 2 * TRAIL_EVENTS
        assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0
