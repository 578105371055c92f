"""Which lists are compared, what is kept of it, and that no user notices."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import event
from sqlalchemy.engine import make_url
from structlog.testing import capture_logs

from api.main import create_app
from api.shadow import sampler
from api.shadow.sampler import Shadow
from shared.phase.phases import Phase
from shared.postgres.database import driver_connection
from shared.settings import Settings
from tests.api.clients import started
from tests.databases import Databases
from tests.metrics.run import Exposition
from tests.processes import HANG_SECONDS
from tests.security.as_role import make_logins
from tests.shadow.lists import LIST, OWNER, compared, counted, done, listed
from tests.shadow.situations import FAULTS, Scene, turn

FINDINGS = "SELECT collection_id, kind, epoch, found_times FROM shadow_findings ORDER BY collection_id"
ROUNDS = 20
END_SESSIONS = """
    SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
    WHERE application_name = 'collection-sync shadow' AND datname = current_database()
"""


async def test_each_list_of_the_sample_is_compared_and_counted_by_the_minute(
    client: httpx.AsyncClient, shadow: Shadow, scene: Scene
) -> None:
    await compared(client, shadow, 3)
    await shadow.store()
    await scene.write("a")
    await compared(client, shadow, 2)
    await shadow.store()
    await shadow.store()  # nothing is stored twice
    [row] = await _summed(scene.sql)
    assert row == (1, 3, 0, 2, 0, 0, 0, 15, True, True, True)


async def _summed(sql: asyncpg.Connection) -> list[tuple[object, ...]]:
    """Return the counts by their epoch: a minute may have ended meanwhile."""
    sums = ", ".join(
        f"sum({name})::int"
        for name in ("matched", "mismatched", "pending", "lettered", "dropped", "failed", "collections")
    )
    rows = await sql.fetch(
        f"SELECT epoch, {sums}, sum(legacy_seconds) > 0, sum(target_seconds) > 0, max(last_at) IS NOT NULL"  # noqa: S608 - constants
        " FROM shadow_counts GROUP BY epoch ORDER BY epoch"
    )
    return [tuple(row) for row in rows]


async def test_what_was_counted_is_stored_and_logged_at_the_end(scene: Scene, app: FastAPI) -> None:
    with capture_logs() as lines:
        async with started(app) as client:
            await compared(client, app.state.collection_sync.shadow, 4)
    [row] = await _summed(scene.sql)
    assert row[:2] == (1, 4)
    [line] = [line for line in lines if line["event"] == "shadow_compared"]
    assert (line["matched"], line["failed"], line["collections"]) == (4, 0, 12)


async def test_what_cannot_be_stored_is_kept_for_the_next_time(
    client: httpx.AsyncClient, shadow: Shadow, scene: Scene
) -> None:
    await compared(client, shadow, 2)
    await scene.sql.execute("ALTER TABLE shadow_counts RENAME TO hidden")
    with pytest.raises(asyncpg.UndefinedTableError):
        await shadow.store()
    await compared(client, shadow)
    await scene.sql.execute("ALTER TABLE hidden RENAME TO shadow_counts")
    await shadow.store()
    [row] = await _summed(scene.sql)
    assert row[:2] == (1, 3)


async def test_three_planted_faults_are_found_named_counted_and_logged(
    client: httpx.AsyncClient, shadow: Shadow, scene: Scene
) -> None:
    for collection_id, fault in zip("abc", FAULTS.values(), strict=True):
        await scene.sql.execute(fault, collection_id)
    with capture_logs() as lines:
        await client.get(LIST, headers=OWNER | {"X-Request-ID": "first"})
        await done(shadow)
        await compared(client, shadow)
    found = [tuple(row) for row in await scene.sql.fetch(FINDINGS)]
    assert found == [(name, kind, 1, 2) for name, kind in zip("abc", FAULTS, strict=True)]
    assert counted(shadow) == {"mismatched": 2}
    named = [
        (line["collection_id"], line["kind"], line["phase"], line["request_id"])
        for line in lines
        if line["event"] == "shadow_mismatch"
    ]
    assert named == [(name, kind, "shadow_reads", "first") for name, kind in zip("abc", FAULTS, strict=True)]


async def test_metrics_tell_what_came_of_lists_and_what_both_sides_took(
    client: httpx.AsyncClient, shadow: Shadow, scene: Scene
) -> None:
    await compared(client, shadow, 2)
    await scene.sql.execute(FAULTS["missing"], "a")
    await compared(client, shadow)
    exposed = Exposition.of((await client.get("/metrics")).text)
    lists = "collection_sync_shadow_lists_total"
    assert exposed.value(lists, outcome="matched") == 2
    assert exposed.value(lists, outcome="mismatched") == 1
    assert exposed.value(lists, outcome="failed") == 0
    for side in ("legacy", "target"):
        assert exposed.value("collection_sync_shadow_seconds_total", side=side)
    assert exposed.value("collection_sync_reads_fell_back_total") == 0


async def test_a_share_of_the_lists_is_compared(
    scene: Scene, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    del scene
    app = create_app(settings.model_copy(update={"shadow_share": 0.25}))
    async with started(app) as client:
        dice = itertools.cycle([0.0, 0.249, 0.25, 0.999])
        monkeypatch.setattr("random.random", lambda: next(dice))
        shadow: Shadow = app.state.collection_sync.shadow
        await compared(client, shadow, 8)
        assert counted(shadow) == {"matched": 4}


@pytest.mark.parametrize("phase", [Phase.LEGACY_ONLY, Phase.OUTBOX, Phase.VERIFIED])
async def test_where_nothing_is_compared_the_row_is_asked_for_once_in_a_while_and_nothing_else_is(
    phase: Phase, client: httpx.AsyncClient, shadow: Shadow, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    lent: list[object] = []
    pool = shadow._engine.sync_engine.pool  # noqa: SLF001 - nobody else asks
    event.listen(pool, "checkout", lambda *borrowed: lent.append(borrowed))
    await turn(scene.sql, phase)
    monkeypatch.setattr(sampler, "LOOK_SECONDS", 3600.0)
    await compared(client, shadow, 5)
    assert (len(lent), counted(shadow)) == (1, {})
    monkeypatch.setattr(sampler, "LOOK_SECONDS", 0.0)
    shadow._next_look = 0.0  # noqa: SLF001 - an hour later
    await turn(scene.sql, Phase.SHADOW_READS)
    await compared(client, shadow, 2)
    assert counted(shadow) == {"matched": 2}


@pytest.mark.parametrize("seconds", [0, pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(300)])])
async def test_while_the_target_is_locked_every_list_is_answered_and_none_is_compared(
    seconds: float, scene: Scene, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "LOCK_TIMEOUT", "200ms")
    app = create_app(settings.model_copy(update={"shadow_share": 1.0}))
    async with started(app) as client:
        shadow: Shadow = app.state.collection_sync.shadow
        await compared(client, shadow)
        async with scene.sql.transaction():
            await scene.sql.execute("LOCK TABLE project_collections IN ACCESS EXCLUSIVE MODE")
            rounds, ends = 0, time.monotonic() + seconds
            while rounds < ROUNDS or time.monotonic() < ends:
                async with asyncio.timeout(HANG_SECONDS):
                    await asyncio.gather(*(listed(client) for _ in range(3)))
                rounds += 1
            await done(shadow)
        came = counted(shadow)
        assert came["matched"] == 1
        assert came["failed"] + came["dropped"] == 3 * rounds
        assert min(came["failed"], came["dropped"]) > 0
        await compared(client, shadow)
        assert counted(shadow)["matched"] == 2


async def test_while_others_are_compared_a_list_is_dropped(client: httpx.AsyncClient, shadow: Shadow) -> None:
    await compared(client, shadow)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(sampler.CONNECTIONS):
            await stack.enter_async_context(driver_connection(shadow._engine))  # noqa: SLF001 - to take all
        for _ in range(5):
            await listed(client)
        assert counted(shadow) == {"matched": 1, "dropped": 5 - sampler.AT_ONCE}
    await done(shadow)
    assert counted(shadow) == {"matched": 1 + sampler.AT_ONCE, "dropped": 5 - sampler.AT_ONCE}


async def test_who_cannot_connect_to_compare_lets_users_list(
    client: httpx.AsyncClient, shadow: Shadow, scene: Scene, databases: Databases
) -> None:
    await compared(client, shadow)
    database = await scene.sql.fetchval("SELECT quote_ident(current_database())")
    databases.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    await scene.sql.execute(END_SESSIONS)
    try:
        await compared(client, shadow, 3)
        assert counted(shadow) == {"matched": 1, "failed": 3}
    finally:
        databases.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
    await compared(client, shadow)
    assert counted(shadow) == {"matched": 2, "failed": 3}


async def test_no_list_that_was_refused_is_compared(client: httpx.AsyncClient, shadow: Shadow) -> None:
    answer = await client.get(LIST, headers={"User-ID": "stranger"})
    assert answer.status_code in {403, 404}
    await done(shadow)
    assert counted(shadow) == {}


@pytest.fixture
async def as_its_role(scene: Scene, settings: Settings) -> AsyncIterator[Settings]:
    urls = await make_logins(scene.sql, settings.database_url.get_secret_value())
    yield settings.model_copy(update={"database_url": SecretStr(urls["api"])})
    for url in urls.values():
        await scene.sql.execute(f"DROP ROLE {make_url(url).username}")


async def test_the_role_of_the_api_may_do_all_of_it(scene: Scene, as_its_role: Settings) -> None:
    await _compare_and_fall_back(scene, as_its_role)


async def test_each_of_its_statements_brings_its_settings_where_a_pooler_has_the_sessions(
    scene: Scene, settings: Settings
) -> None:
    await _compare_and_fall_back(scene, settings.model_copy(update={"database_pooler": "transaction"}))


async def _compare_and_fall_back(scene: Scene, settings: Settings) -> None:
    await turn(scene.sql, Phase.READS_MOVED)
    app = create_app(settings.model_copy(update={"shadow_share": 1.0}))
    async with started(app) as client:
        shadow: Shadow = app.state.collection_sync.shadow
        await compared(client, shadow)
        await scene.sql.execute(FAULTS["mismatched"], "b")
        await compared(client, shadow, 2)
        assert counted(shadow) == {"matched": 1, "mismatched": 2}
        assert shadow.mismatches.fell_back == 1
    assert [row[:2] for row in await _summed(scene.sql)] == [(2, 1), (3, 0)]
    assert await scene.sql.fetchval("SELECT found_times FROM shadow_findings") == 2
