"""What docs/mounting.md tells people to paste must work as it stands."""

import re

import asyncpg
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import Settings
from tests.api.clients import started
from tests.draining import drain
from tests.drift import drift
from tests.forked import ROOT
from tests.legacy_rows import seed

CODE_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


async def test_the_application_of_the_page_serves_the_endpoints(
    settings: Settings, engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("REDIS_URL", settings.redis_url.get_secret_value())
    await seed(sql)
    application = CODE_BLOCK.findall((ROOT / "docs" / "mounting.md").read_text(encoding="utf-8"))[0]
    names: dict[str, object] = {}
    exec(compile(application, "docs/mounting.md", "exec"), names)  # noqa: S102 - our own page
    app = names["app"]
    assert isinstance(app, FastAPI)

    async with started(app) as client:
        created = await client.post(
            "/projects/p1/collections", headers={"User-ID": "owner"}, json={"collection_name": "Mounted"}
        )
    assert created.status_code == 200
    await drain(engine)
    assert await drift(sql) == []
    assert await sql.fetchval("SELECT count(*) FROM project_collections") == 1
