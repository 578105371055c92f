"""What comes and goes, again and again, while events are being applied costs none of them its life."""

import asyncio
import random
from collections.abc import AsyncIterator

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.database import create_engine
from shared.settings import Settings
from tests.chaos.spells import RENAME, REVOKE
from tests.drift import drift
from tests.processes import HANG_SECONDS
from tests.race import freezing
from tests.security.conftest import urls as urls  # noqa: PLC0414 - a fixture
from worker.drainer import Drainer
from worker.relay.apply import apply

INSERT = """
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
    SELECT 'c' || number, 'p1', 'name', 'owner', true FROM generate_series(1, $1::integer) AS number
"""
CHANGE = """
    WITH changed AS (UPDATE collections SET description = $1, updated_at = clock_timestamp() RETURNING *)
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.updated', 'api', jsonb_build_object('project_id', project_id,
        'research_context', description, 'created_at', created_at, 'updated_at', updated_at)
    FROM changed
"""
END_SESSIONS = """
    SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'stormed'
"""
MARKS = "SELECT max(attempts) FROM outbox_events"
PENDING = "SELECT count(*) FROM outbox_events"
LETTERS = "SELECT aggregate_id, sqlstate, error FROM outbox_dead_letters"
AWAY = {
    "the target": [statement.replace("{}", "project_collections") for statement in RENAME],
    "guards": [statement.replace("{}", "applied_versions") for statement in RENAME],
    "grants": [REVOKE[0].replace("{}", "project_collections"), REVOKE[1]],
}
ENDS = 3  # of all sessions, before what is away comes back
IN_A_ROW = 10  # twice as many as an event is given that ends the server


@pytest.fixture
async def as_worker(settings: Settings, urls: dict[str, str]) -> AsyncIterator[AsyncEngine]:
    """As the worker's, with the rights of its role."""
    own = Settings(database_url=SecretStr(urls["worker"]), redis_url=settings.redis_url)
    engine = create_engine(own, application_name="stormed", pool_size=5, statement_timeout_seconds=30)
    yield engine
    await engine.dispose()


@pytest.mark.wide
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("events", "moments"), [(100, 6), pytest.param(1_000, 20, marks=pytest.mark.long)])
async def test_while_a_batch_is_divided_what_goes_and_comes_and_ends_sessions_costs_no_event_its_life(
    events: int,
    moments: int,
    as_worker: AsyncEngine,
    sql: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each moment is a number of parts that were tried; others do it, in sessions of their own."""
    dice = random.Random(moments)  # noqa: S311 - to be repeated
    step, deeds = 0, dict[int, str]()

    async def apply_in_the_storm(connection: asyncpg.Connection, ids: list[int]) -> set[int]:
        nonlocal step
        step += 1
        if step in deeds:
            await sql.execute(deeds.pop(step))
        return await apply(connection, ids)

    monkeypatch.setattr("worker.relay.settle.apply", apply_in_the_storm)
    monkeypatch.setattr("worker.drainer.LAST_RETRY_SECONDS", 0)
    await sql.execute(INSERT, events)
    drainer = Drainer(as_worker)
    for moment in range(moments):
        away, back = dice.choice(list(AWAY.values()))
        last = dice.randrange(ENDS + 2, events * 3 // 2)
        step, deeds = 0, dict.fromkeys(dice.sample(range(1, last), ENDS), END_SESSIONS) | {last: back}
        await sql.execute(CHANGE, f"text {moment}")
        await sql.execute(away)
        async with asyncio.timeout(HANG_SECONDS):
            while await sql.fetchval(PENDING):
                await drainer.drain("sweep")
        assert (deeds, await sql.fetch(LETTERS), await drift(sql)) == ({}, [], [])


@pytest.mark.parametrize(
    "point", ["guard: before one row", "target: after rows were written", "commit: of a batch"]
)
async def test_sessions_ended_while_their_statements_run_mark_no_event_twice_and_cost_none_its_life(
    point: str, as_worker: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.drainer.LAST_RETRY_SECONDS", 0)
    monkeypatch.setattr("worker.relay.caution.CRASH_SHOWS_SECONDS", 0)  # no server crashes here
    await freezing.install(sql)
    await sql.execute(INSERT, 100)
    await sql.execute(CHANGE, "text")
    drainer = Drainer(as_worker)
    async with freezing.frozen(sql, point):
        for _ in range(IN_A_ROW):
            drainer.wake("sweep")
            await freezing.arrived(sql, point)
            await sql.execute(END_SESSIONS)
            assert await sql.fetchval(MARKS) <= 1  # the present one, to be taken away
    await drainer.drain("sweep")
    assert (await sql.fetchval(PENDING), await sql.fetch(LETTERS), await drift(sql)) == (0, [], [])


async def test_sessions_ended_between_their_statements_mark_no_event_twice_and_cost_none_its_life(
    as_worker: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = marks = 0

    async def apply_in_an_ended_session(connection: asyncpg.Connection, ids: list[int]) -> set[int]:
        nonlocal ended, marks
        if ended < IN_A_ROW:
            ended += 1
            await sql.execute(END_SESSIONS)
            marks = max(marks, await sql.fetchval(MARKS))
        return await apply(connection, ids)

    monkeypatch.setattr("worker.relay.settle.apply", apply_in_an_ended_session)
    monkeypatch.setattr("worker.drainer.LAST_RETRY_SECONDS", 0)
    await sql.execute(INSERT, 100)
    await sql.execute(CHANGE, "text")
    drainer = Drainer(as_worker)
    while await sql.fetchval(PENDING):
        await drainer.drain("sweep")
    assert (ended, marks <= 1) == (IN_A_ROW, True)
    assert (await sql.fetch(LETTERS), await drift(sql)) == ([], [])
