"""A migrated database under `deploy/roles.sql` with a login in each role, and what preflight finds there."""

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from deploy.local.postgres import find_binaries, major_of
from shared.settings import Settings
from tests.security.conftest import urls as urls  # noqa: PLC0414 - a fixture of ours, too
from worker.preflight.check import Check
from worker.preflight.examination import examine

# The tests' server does without the disk and without autovacuum: see tests/conftest.py.
OF_THE_TESTS_SERVER = {"durability", "autovacuum"}
# Before PostgreSQL 15 everybody may create in public until somebody revokes that.
OF_A_NEW_DATABASE = OF_THE_TESTS_SERVER | ({"schemas"} if major_of(find_binaries()) < 15 else set())


@pytest.fixture
def names(database_url: str, urls: dict[str, str]) -> Mapping[str, Any]:
    """What a world's SQL calls the database and the logins."""
    logins = {role: make_url(url).username for role, url in urls.items()}
    return {"database": make_url(database_url).database, **logins}


async def checked(settings: Settings) -> dict[str, Check]:
    """Return every check, by its name."""
    return {check.name: check for check in await examine(settings)}
