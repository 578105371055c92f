"""With `--pooler` all of these tests run through PgBouncer in transaction mode, but for those who watch."""

from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from pydantic import SecretStr

from shared.settings import Settings
from tests import processes
from tests.scaling.pgbouncer import Poolers, poolers

WayTo = Callable[[str], dict[str, str]]


@pytest.fixture(scope="session")
def _poolers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Poolers | None]:
    if not request.config.getoption("--pooler"):
        yield None
        return
    with poolers(tmp_path_factory.mktemp("poolers")) as started:
        yield started


@pytest.fixture(autouse=True, scope="session")
def way_to(_poolers: Poolers | None) -> Iterator[WayTo]:
    """How the product reaches a database; its processes are started so."""
    with pytest.MonkeyPatch.context() as patch:
        if _poolers is not None:
            patch.setattr(processes, "way_to", _poolers.way_to)
        yield processes.way_to


SettingsFor = Callable[[str], Settings]


@pytest.fixture
def settings_for(way_to: WayTo, redis_url: str) -> SettingsFor:
    """Make the settings of what works on a database in this process."""

    def make(database_url: str) -> Settings:
        way = way_to(database_url)
        pooler: Literal["transaction"] | None = "transaction" if "DATABASE_POOLER" in way else None
        return Settings(
            database_url=SecretStr(way["DATABASE_URL"]),
            database_pooler=pooler,
            redis_url=SecretStr(redis_url),
        )

    return make


@pytest.fixture
def settings(database_url: str, settings_for: SettingsFor) -> Settings:
    return settings_for(database_url)
