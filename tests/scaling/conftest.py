from collections.abc import Iterator

import pytest

from deploy.local.postgres import Postgres
from shared.settings import Settings
from tests.processes import HANG_SECONDS
from tests.scaling.pgbouncer import Poolers, poolers


@pytest.fixture(scope="session")
def pooled(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Poolers]:
    """PgBouncer in transaction mode, with fewer sessions than a worker would open.

    On a machine that is busy whoever needs a session may have to wait long for it.
    """
    settings = {"default_pool_size": "4", "query_wait_timeout": str(HANG_SECONDS)}
    with poolers(tmp_path_factory.mktemp("poolers"), settings) as started:
        started.way_to(postgres.url)
        yield started


@pytest.fixture
def pooled_settings(settings: Settings, pooled: Poolers) -> Settings:
    """The settings of what works on the test's database through PgBouncer."""
    return pooled.settings_through(settings)
