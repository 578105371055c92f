"""Real services: a PostgreSQL and a Valkey for each process that runs tests, a database for each test."""

import fcntl
import gc
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from deploy.local.postgres import USER, Postgres
from deploy.local.valkey import Valkey
from shared.postgres.database import create_engine
from shared.settings import Settings
from tests.databases import MIGRATED, Databases
from tests.forked import run
from tests.locales import compile_english
from tests.processes import environment

pytest_plugins = [
    "tests.memory",
    "tests.logs.plugin",
    "tests.programs",
    "tests.engines",
    "tests.twins.plugin",
]

# Nor does autovacuum come by: it analyses what tests look at, and so changes plans, whenever it is its turn.
FIRST_WITH_SCRAM_ITERATIONS = 16
FAST = {"fsync": "off", "max_connections": "200", "autovacuum": "off"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow ones: side by side, the short ones then fill what time is left beside the last."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pooler", action="store_true", help="run tests/acceptance through PgBouncer in transaction mode"
    )


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over all that was imported and collected: it stays until the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _leaves_what_is_there_alone() -> None:
    """Let it pass over what was imported since, too: to look through that takes as long as a short test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _clears_its_garbage_away() -> Iterator[None]:
    """Blame a test itself, and not the one that happens to come next, for what it left open."""
    yield
    gc.collect()


def migrate(database_url: str) -> None:
    """Run `alembic upgrade head` as an operator does."""
    done = run(["-m", "alembic", "upgrade", "head"], environment(database_url, "redis://127.0.0.1:1"))
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cluster whose one database is migrated, and a locale, made once for all processes of a run."""
    ours = tmp_path_factory.getbasetemp()
    place = ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours
    finished = place / "prepared"
    with (place / "prepared.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            unfinished = place / "prepared.unfinished"
            prepare(unfinished)
            unfinished.rename(finished)
    return finished


def prepare(directory: Path) -> None:
    """Make what each process of a run copies; a password that is dear to check is dear at each connection."""
    (directory / "locales").mkdir(parents=True)
    compile_english(directory / "locales")
    with Postgres(directory / "postgres", settings=FAST) as server, Databases(server) as databases:
        migrate(databases.create_empty(MIGRATED))
        if server.major >= FIRST_WITH_SCRAM_ITERATIONS:
            databases.execute("SET scram_iterations = 1")
            databases.execute(f"ALTER ROLE {USER} PASSWORD '{server.password}'")


@pytest.fixture(scope="session")
def services() -> Iterator[Path]:
    """Where servers keep their data."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)  # a server runs as another user
        yield Path(directory)


@pytest.fixture(scope="session")
def postgres(cluster: Path, services: Path) -> Iterator[Postgres]:
    """A server of this process's own, so that no test sees sessions, locks or roles of another's."""
    shutil.copytree(cluster / "locales", services / "locales")
    shutil.copytree(cluster / "postgres", services / "postgres")
    with pytest.MonkeyPatch.context() as patch:
        if any((services / "locales").iterdir()):  # else the system's own are all there is
            patch.setenv("LOCPATH", str(services / "locales"))
        with Postgres(services / "postgres", settings=FAST) as server:
            yield server


@pytest.fixture(scope="session")
def valkey(services: Path) -> Iterator[Valkey]:
    with Valkey(services / "valkey") as server:
        yield server


@pytest.fixture(scope="session")
def databases(postgres: Postgres) -> Iterator[Databases]:
    with Databases(postgres) as databases:
        yield databases


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    with databases.clone(MIGRATED) as url:
        yield url


@pytest.fixture
async def redis_url(valkey: Valkey) -> str:
    async with Redis.from_url(valkey.url) as redis:
        await redis.flushall()
    return valkey.url


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    # No list is compared by chance: who counts what a request does would count that as well.
    return Settings(database_url=SecretStr(database_url), redis_url=SecretStr(redis_url), shadow_share=0.0)


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
