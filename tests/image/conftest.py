"""An engine with the image in it, and the whole system as compose starts it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.deploy.test_container import COMPOSE
from tests.image.compose import System, started
from tests.image.debian import make_images
from tests.image.engine import BUILD_SECONDS, Engine, an_engine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.image)
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS))


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with an_engine() as found:
        if found.is_ours:
            make_images(found)
        yield found


@pytest.fixture(scope="session")
def image(engine: Engine) -> str:
    """The image's name, built by the command that the documentation has."""
    name: str = COMPOSE["api"]["image"]
    engine.said("build", "--tag", name, ".", seconds=BUILD_SECONDS)
    return name


@pytest.fixture(scope="session")
def system(engine: Engine, image: str) -> Iterator[System]:
    with started(engine, image) as running:
        yield running


@pytest.fixture
async def database(system: System) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(system.database_url)
    yield connection
    await connection.close()
