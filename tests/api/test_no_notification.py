import asyncpg
from fastapi import FastAPI
from sqlalchemy import make_url

from deploy.local.postgres import Postgres
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, started
from tests.drift import drained
from worker.main import arq_settings

OUR_TRIGGERS_AND_WRITING_FUNCTIONS = """
    SELECT tgname FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND provolatile = 'v'
"""


async def test_neither_a_write_nor_its_drain_notifies_anybody_through_postgresql(
    app: FastAPI, settings: Settings, seeded: asyncpg.Connection, postgres: Postgres
) -> None:
    """NOTIFY takes a lock of the whole server in each commit: writers would wait for one another."""
    database = make_url(settings.database_url.get_secret_value()).database
    await seeded.execute(f"ALTER DATABASE {database} SET log_statement = 'all'")  # of sessions that begin now
    read_from = postgres.log.stat().st_size
    worker = arq_settings(settings)["ctx"]
    async with started(app) as client:
        answer = await client.post(ALL, headers=OWNER, json={"collection_name": "x"})
    assert answer.status_code == 200
    await worker["drainer"].drain("doorbell")
    await drained(seeded)
    for engine in worker["engines"]:
        await engine.dispose()
    with postgres.log.open() as log:
        log.seek(read_from)
        logged = log.read().lower()
    assert "into outbox_events" in logged
    assert "into project_collections" in logged
    assert "notify" not in logged
    assert await seeded.fetch(OUR_TRIGGERS_AND_WRITING_FUNCTIONS) == []  # what these would send is not logged
