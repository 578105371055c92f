"""With `--pooler` all of these tests run through PgBouncer in transaction mode, but for those who watch."""

from collections.abc import Callable, Iterator

import pytest
from pydantic import SecretStr

from shared.settings import Settings
from tests import processes
from tests.scaling.pgbouncer import Poolers, poolers


@pytest.fixture(scope="session")
def _poolers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Poolers | None]:
    if not request.config.getoption("--pooler"):
        yield None
        return
    with poolers(tmp_path_factory.mktemp("poolers")) as started:
        yield started


@pytest.fixture(autouse=True, scope="package")
def _processes_take_the_way_through_them(_poolers: Poolers | None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if _poolers is not None:
            patch.setattr(processes, "way_to", _poolers.way_to)
        yield


SettingsFor = Callable[[str], Settings]


@pytest.fixture
def settings_for(_poolers: Poolers | None, redis_url: str) -> SettingsFor:
    """Make the settings of what works on a database in this process."""

    def make(database_url: str) -> Settings:
        direct = Settings(database_url=SecretStr(database_url), redis_url=SecretStr(redis_url))
        return direct if _poolers is None else _poolers.settings_through(direct)

    return make


@pytest.fixture
def settings(database_url: str, settings_for: SettingsFor) -> Settings:
    return settings_for(database_url)
