"""Preflight through PgBouncer in transaction mode, with and without DATABASE_POOLER."""

from pydantic import SecretStr

from shared.settings import Settings
from tests.preflight.conftest import OF_A_NEW_DATABASE, checked
from tests.scaling.conftest import pooled as pooled  # noqa: PLC0414 - a fixture of ours, too
from tests.scaling.conftest import pooled_settings as pooled_settings  # noqa: PLC0414
from tests.scaling.pgbouncer import Poolers
from worker.preflight.check import Severity


async def test_through_a_pooler_that_is_declared_everything_is_looked_at(pooled_settings: Settings) -> None:
    made = await checked(pooled_settings)
    assert {name for name, check in made.items() if check.state} == OF_A_NEW_DATABASE
    assert "Through the pooler" in made["pooler"].sentence


async def test_a_pooler_that_is_not_declared_is_one_stop_that_says_what_to_set(
    settings: Settings, pooled: Poolers
) -> None:
    url = SecretStr(pooled.settings_through(settings).database_url.get_secret_value())
    made = await checked(settings.model_copy(update={"database_url": url}))
    assert made["database"].state is Severity.STOP
    assert "Set DATABASE_POOLER=transaction" in made["database"].sentence
    assert made["triggers"].sentence == "could not look: PostgreSQL was not reached"
