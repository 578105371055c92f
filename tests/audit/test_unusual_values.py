"""Rows whose values Python cannot hold: the audit finds them, mends them and shows them all the same."""

import asyncpg
import pytest

from shared.settings import Settings
from tests.audit.pairs import put_pair
from tests.audit.test_command import run_audit
from tests.drift import drift
from tests.processes import environment, running_worker


@pytest.mark.parametrize("time", ["10000-01-01", "0001-01-01 BC", "infinity", "-infinity"])
async def test_a_time_that_python_has_not_is_found_mended_and_shown(
    settings: Settings, seeded: asyncpg.Connection, time: str
) -> None:
    env = environment(settings.database_url.get_secret_value(), settings.redis_url.get_secret_value())
    await put_pair(seeded, "c1")
    await seeded.execute("UPDATE collections SET created_at = $1::text::timestamptz", time)
    await seeded.execute("UPDATE collections SET updated_at = created_at")
    assert (await run_audit(env, "--json")).result["mismatched"] == 1
    async with running_worker(env):
        assert (await run_audit(env, "--json", "--repair")).result["verdict"] == "repaired"
    assert await drift(seeded) == []
    assert (await run_audit(env, "--json")).result["verdict"] == "in_sync"
