"""Liveness says that the process answers; readiness what is missing, and what to do about it."""

import asyncio
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from api import health
from api.health import REDIS_SECONDS
from api.main import create_app
from shared.postgres import database
from shared.redis import client as redis_client
from shared.settings import Settings
from tests.api.clients import OWNER, create, started
from tests.api.test_faults import silent_server
from tests.databases import Databases
from tests.processes import HANG_SECONDS

NOWHERE = "postgresql+asyncpg://nobody@127.0.0.1:1/nothing"


async def readiness(settings: Settings) -> tuple[int, dict[str, Any]]:
    async with started(create_app(settings)) as client:
        answer = await client.get("/readyz")
    return answer.status_code, answer.json()


async def test_ready_when_postgresql_its_migrations_and_redis_are_there(settings: Settings) -> None:
    fine = {"ok": True, "what_to_do": None}
    assert await readiness(settings) == (
        200,
        {
            "status": "ready",
            "checks": {
                "postgresql": {"required": True, **fine},
                "migrations": {"required": True, **fine},
                "redis": {"required": False, **fine},
            },
        },
    )


async def test_still_ready_while_redis_is_away_or_hangs_and_within_a_second(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert REDIS_SECONDS < 1
    monkeypatch.setattr(health, "REDIS_SECONDS", 0.05)
    monkeypatch.setattr(
        redis_client, "REDIS_TIMEOUT_SECONDS", 1
    )  # redis-py does not always heed a cancellation
    async with silent_server() as hanging:
        for url in ("redis://127.0.0.1:1", hanging):
            async with asyncio.timeout(HANG_SECONDS):
                status, body = await readiness(settings.model_copy(update={"redis_url": SecretStr(url)}))
            assert (status, body["status"]) == (200, "ready")
            assert body["checks"]["redis"]["ok"] is False
            assert "REDIS_URL" in body["checks"]["redis"]["what_to_do"]


async def test_not_ready_on_a_database_that_was_never_migrated(
    settings: Settings, databases: Databases
) -> None:
    with databases.clone("template1") as url:
        bare = Settings(database_url=SecretStr(url), redis_url=settings.redis_url)
        status, body = await readiness(bare)
    assert (status, body["status"]) == (503, "not ready")
    assert body["checks"]["postgresql"]["ok"] is True
    assert "alembic upgrade head" in body["checks"]["migrations"]["what_to_do"]


async def test_not_ready_on_a_database_at_another_migration(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    await sql.execute("UPDATE collection_sync_version SET version_num = '0000'")
    status, body = await readiness(settings)
    assert status == 503
    assert "0000" in body["checks"]["migrations"]["what_to_do"]


WRONG = {
    "behind": "SELECT setval('outbox_events_id_seq', 1, false)",
    "a cache": "ALTER SEQUENCE outbox_events_id_seq CACHE 50",
    "downwards": "ALTER SEQUENCE outbox_events_id_seq INCREMENT BY -1",
    "a cycle": "ALTER SEQUENCE outbox_events_id_seq CYCLE",
    "runs": "ALTER SEQUENCE backfill_runs_id_seq INCREMENT BY -1",
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
async def test_not_ready_and_no_write_once_a_sequence_is_wrong_until_it_is_cured(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, wrong: str
) -> None:
    """Although the API has connections from before."""
    path = await create(client)
    await seeded.execute(wrong)
    events = "SELECT array_agg(id ORDER BY id) FROM outbox_events"
    before = await seeded.fetchval(events)
    for _ in range(2):
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        told = answer.json()["checks"]["postgresql"]["what_to_do"]
        assert "_id_seq" in told
        for _ in range(2):
            assert (await client.put(path, headers=OWNER, json={"color": "#000000"})).status_code == 503
    assert await seeded.fetchval(events) == before
    await seeded.execute(told.partition("this SQL: ")[2])
    assert (await client.get("/readyz")).status_code == 200
    assert (await client.put(path, headers=OWNER, json={"color": "#000000"})).status_code == 200
    assert (await seeded.fetchval(events))[:-1] == before


async def test_a_connection_that_was_lent_when_a_sequence_was_found_wrong_is_not_lent_again(
    client: httpx.AsyncClient, app: FastAPI, seeded: asyncpg.Connection
) -> None:
    path = await create(client)
    async with app.state.collection_sync.engine.connect():  # the pool's one connection
        await seeded.execute(WRONG["downwards"])
        assert (await client.get("/readyz")).status_code == 503  # by one that was opened for it
    assert (await client.put(path, headers=OWNER, json={"color": "#000000"})).status_code == 503
    await seeded.execute("ALTER SEQUENCE outbox_events_id_seq INCREMENT BY 1")
    assert (await client.put(path, headers=OWNER, json={"color": "#000000"})).status_code == 200


async def test_not_ready_without_postgresql_and_the_answer_holds_no_address(settings: Settings) -> None:
    status, body = await readiness(settings.model_copy(update={"database_url": SecretStr(NOWHERE)}))
    assert status == 503
    assert body["checks"]["postgresql"]["ok"] is False
    assert body["checks"]["migrations"]["ok"] is False
    assert "DATABASE_URL" in body["checks"]["postgresql"]["what_to_do"]
    assert "127.0.0.1" not in str(body)


async def test_not_ready_in_bounded_time_when_postgresql_accepts_and_says_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "REACH_SECONDS", 0.05)
    monkeypatch.setattr(health, "POSTGRESQL_SECONDS", 0.05)
    async with silent_server() as hanging:
        url = hanging.replace("redis://", "postgresql+asyncpg://nobody@") + "/nothing"
        async with asyncio.timeout(HANG_SECONDS):
            status, _ = await readiness(settings.model_copy(update={"database_url": SecretStr(url)}))
    assert status == 503


async def test_not_ready_when_postgresql_refuses_us(settings: Settings, database_url: str) -> None:
    right = make_url(database_url)
    for wrong in (right.set(database="no_such_database"), right.set(password="no such password")):
        url = SecretStr(wrong.render_as_string(hide_password=False))
        status, body = await readiness(Settings(database_url=url, redis_url=settings.redis_url))
        assert status == 503
        assert "no such" not in str(body)


async def test_alive_whatever_is_away(settings: Settings) -> None:
    alone = settings.model_copy(
        update={"database_url": SecretStr(NOWHERE), "redis_url": SecretStr("redis://127.0.0.1:1")}
    )
    async with started(create_app(alone)) as client:
        answer: httpx.Response = await client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


async def test_a_probe_that_asks_for_the_head_is_told_the_same(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": SecretStr(NOWHERE)})
    for these, ready in ((settings, 200), (away, 503)):
        async with started(create_app(these)) as client:
            for path, status in (("/healthz", 200), ("/readyz", ready), ("/metrics", 200)):
                answers = [await client.request(method, path) for method in ("GET", "HEAD")]
                assert [answer.status_code for answer in answers] == [status, status]
                types = {answer.headers["Content-Type"] for answer in answers}
                assert len(types) == 1


async def test_the_version_before_is_ready_while_the_database_is_migrated_already(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    await sql.execute("UPDATE collection_sync_version SET version_num = '0001'")
    assert (await readiness(settings))[0] == 503
    await sql.execute("UPDATE collection_sync_version SET version_num = '9999'")
    assert (await readiness(settings))[0] == 200
