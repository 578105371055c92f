"""What logical replication applies is no write that the capture sees; and it is said that it is not."""

import asyncio
from pathlib import Path

import asyncpg
from pydantic import SecretStr

from deploy.local.postgres import Postgres
from shared.postgres.database import create_engine
from shared.settings import DatabaseSettings
from tests.conftest import FAST, migrate
from tests.drift import drift
from tests.legacy_rows import SEED
from worker.capture.change import change
from worker.capture.unseen import unseen

HANG_SECONDS = 60
WRITE = """
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
    VALUES ('c1', 'p1', 'name', 'owner', true)
"""


async def test_what_a_subscription_applies_is_not_captured_and_the_status_names_it(services: Path) -> None:
    settings = FAST | {"wal_level": "logical"}
    with Postgres(services / "subscribing", settings=settings) as server:
        urls = [server.url_of(name) for name in ("origin", "subscriber")]
        admin = await asyncpg.connect(server.url)
        await admin.execute("CREATE DATABASE origin")
        await asyncio.to_thread(migrate, urls[0])
        await admin.execute("CREATE DATABASE subscriber TEMPLATE origin")
        origin, subscriber = [await asyncpg.connect(url) for url in urls]
        for each in (origin, subscriber):
            await each.execute(SEED)
        engine = create_engine(
            DatabaseSettings(database_url=SecretStr(urls[1])),
            application_name="test",
            pool_size=2,
            statement_timeout_seconds=30,
        )
        await change(engine, "append", interrupted=asyncio.Event(), watch=lambda _: None)
        async with engine.connect() as connection:
            assert await unseen(connection) == []
        await origin.execute("CREATE PUBLICATION followed FOR TABLE collections")
        # Both are of one server, so the slot cannot be made by the subscription itself.
        await origin.execute("SELECT pg_create_logical_replication_slot('followed', 'pgoutput')")
        await subscriber.execute(
            f"CREATE SUBSCRIPTION followed CONNECTION '{urls[0]}' PUBLICATION followed"
            " WITH (create_slot = false)"
        )
        await origin.execute(WRITE)
        async with asyncio.timeout(HANG_SECONDS):
            while not await subscriber.fetchval("SELECT count(*) FROM collections"):
                await asyncio.sleep(0.05)
        assert await subscriber.fetchval("SELECT count(*) FROM outbox_events") == 0
        assert await subscriber.fetchval("SELECT count(*) FROM captured_writes") == 0
        assert await drift(subscriber) == ["c1"]  # which an audit finds
        async with engine.connect() as connection:
            assert await unseen(connection) == ["A subscription of logical replication writes `collections`."]
        await subscriber.execute("DROP SUBSCRIPTION followed")
        await engine.dispose()
        for each in (admin, origin, subscriber):
            await each.close()
