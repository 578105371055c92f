"""What somebody takes from the API's role for a while costs a request 503, and nothing else."""

from functools import partial

import asyncpg
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from api.main import create_app
from shared.settings import Settings
from tests.api import recording
from tests.api.clients import ALL, OWNER, started

TAKEN_AWAY = {  # by what PostgreSQL says then
    "42501": (
        "REVOKE INSERT (payload) ON outbox_events FROM collection_sync_api",
        "GRANT INSERT (payload) ON outbox_events TO collection_sync_api",
    ),
    "42P01": ("ALTER TABLE collections RENAME TO away", "ALTER TABLE away RENAME TO collections"),
    "42703": (
        "ALTER TABLE collections RENAME description TO away",
        "ALTER TABLE collections RENAME away TO description",
    ),
}


@pytest.mark.parametrize("code", TAKEN_AWAY)
async def test_while_the_api_s_role_lacks_what_it_needs_writes_are_answered_with_503(
    code: str, urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    away, back = TAKEN_AWAY[code]
    await recording.seed(sql)
    settings = Settings(database_url=SecretStr(urls["api"]), redis_url=SecretStr("redis://127.0.0.1:1"))
    async with started(create_app(settings)) as client:
        create = partial(client.post, ALL, headers=OWNER, json={"collection_name": "x"})
        await sql.execute(away)
        with capture_logs() as lines:
            answer = await create()
        assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "1")
        said = [line for line in lines if line["event"] == "database_unavailable"]
        assert [(line["sqlstate"], line["log_level"]) for line in said] == [(code, "error")]
        await sql.execute(back)
        assert (await create()).status_code == 200
