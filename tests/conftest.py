"""Real services for every test: one PostgreSQL and one Valkey a session, one fresh database a test."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from deploy.local.postgres import Postgres
from deploy.local.valkey import Valkey
from shared.database import create_engine
from shared.settings import Settings
from tests.databases import Databases
from tests.locales import compile_english

pytest_plugins = ["tests.logs.plugin"]

ROOT = Path(__file__).parent.parent
MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of a random name is made there
ROOM_BYTES = 4 * 2**30  # a server's log alone may take a quarter of it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow ones: side by side, the short ones then fill what time is left beside the last."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pooler", action="store_true", help="run tests/acceptance through PgBouncer in transaction mode"
    )


def migrate(database_url: str) -> None:
    """Run `alembic upgrade head` as an operator does."""
    subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url, "REDIS_URL": "redis://127.0.0.1:1"},
        check=True,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="session")
def locales() -> Iterator[None]:
    """Let servers find locales that the system lacks."""
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        Path(directory).chmod(0o755)  # a server runs as another user
        if compile_english(Path(directory)):
            patch.setenv("LOCPATH", directory)
        yield


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where servers keep their data: in memory where there is room, so that databases are made fast."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ROOM_BYTES:
        yield tmp_path_factory.mktemp("services")
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="collection-sync-tests-") as directory:
        Path(directory).chmod(0o755)  # a server runs as another user
        yield Path(directory)


@pytest.fixture(scope="session")
def postgres(locales: None, services: Path) -> Iterator[Postgres]:  # noqa: ARG001
    with Postgres(services / "postgres", settings={"fsync": "off", "max_connections": "200"}) as server:
        yield server


@pytest.fixture(scope="session")
def valkey(services: Path) -> Iterator[Valkey]:
    with Valkey(services / "valkey") as server:
        yield server


@pytest.fixture(scope="session")
def databases(postgres: Postgres) -> Databases:
    """One migrated template; each test clones it."""
    databases = Databases(postgres)
    migrate(databases.create_empty("template_migrated"))
    return databases


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    with databases.clone("template_migrated") as url:
        yield url


@pytest.fixture
async def redis_url(valkey: Valkey) -> str:
    async with Redis.from_url(valkey.url) as redis:
        await redis.flushall()
    return valkey.url


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    return Settings(database_url=SecretStr(database_url), redis_url=SecretStr(redis_url))


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(settings, application_name="test", pool_size=20, statement_timeout_seconds=30)
    yield engine
    await engine.dispose()


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection, to look at the database and to change it by hand."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()
