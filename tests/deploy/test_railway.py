"""Railway's configuration. Its schema is only on the platform; keys and types are held against its pages."""

import asyncio
import contextlib
import importlib.util
import json
import secrets
import shlex
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from api.health import health
from shared.migration_state import read_revision
from shared.postgres.database import create_engine
from shared.redis import client as redis_client
from shared.redis.client import open_redis
from shared.revision import REVISION
from shared.settings import Settings
from tests.deploy.dockerfile import context_copies, read_stages
from tests.forked import ROOT, run
from tests.processes import HANG_SECONDS, environment
from tests.security.as_role import ROLES_SQL
from worker.main import COMPLETION_WAIT_SECONDS

HERE = ROOT / "deploy" / "railway"
INSTALL, FINAL = read_stages()
SERVICES: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in HERE.glob("*.json")
}
# https://docs.railway.com/config-as-code/reference; the seconds are numbers, as its parser wants them, while
# that page has shown them as strings.
DOCUMENTED: dict[str, dict[str, type]] = {
    "build": {"builder": str, "dockerfilePath": str, "watchPatterns": list, "buildCommand": str},
    "deploy": {
        "startCommand": str,
        "preDeployCommand": list,
        "healthcheckPath": str,
        "healthcheckTimeout": int,
        "restartPolicyType": str,
        "restartPolicyMaxRetries": int,
        "overlapSeconds": int,
        "drainingSeconds": int,
        "numReplicas": int,
        "cronSchedule": str,
    },
}


def problems_of(configuration: dict[str, Any]) -> list[str]:
    """Say what Railway's documentation does not know of it."""
    sections = {name: value for name, value in configuration.items() if name != "$schema"}
    return [
        f"{section}.{key}"
        for section, values in sections.items()
        for key, value in values.items()
        if type(value) is not DOCUMENTED.get(section, {}).get(key)
    ]


@pytest.mark.parametrize("name", ["api", "worker"])
def test_each_service_says_what_railway_documents(name: str) -> None:
    configuration = SERVICES[name]
    assert configuration["$schema"] == "https://railway.com/railway.schema.json"
    assert problems_of(configuration) == []
    assert configuration["build"]["builder"] == "DOCKERFILE"
    assert configuration["deploy"]["restartPolicyType"] in {"ON_FAILURE", "ALWAYS", "NEVER"}
    assert (ROOT / configuration["build"]["dockerfilePath"]).is_file()


def test_a_key_or_a_type_that_railway_does_not_know_is_seen() -> None:
    harmed = {
        "deploy": {"drainingSeconds": "30", "healthCheckPath": "/", "overlapSeconds": True},
        "run": {"startCommand": "x"},
    }
    assert problems_of(harmed) == [
        "deploy.drainingSeconds",
        "deploy.healthCheckPath",
        "deploy.overlapSeconds",
        "run.startCommand",
    ]


@pytest.mark.parametrize("name", ["api", "worker"])
def test_whatever_the_image_is_made_of_deploys_the_service_anew(name: str) -> None:
    patterns = set(SERVICES[name]["build"]["watchPatterns"])
    sources = {source for names, _ in context_copies(INSTALL) for source in names}
    wanted = {f"/{source}/**" if (ROOT / source).is_dir() else f"/{source}" for source in sources}
    assert patterns == wanted | {"/Dockerfile", "/.dockerignore", f"/deploy/railway/{name}.json"}


def test_the_api_starts_as_the_image_does_and_is_asked_whether_it_is_ready() -> None:
    deploy = SERVICES["api"]["deploy"]
    assert "startCommand" not in deploy
    assert "${PORT:-$DEFAULT_PORT}" in FINAL.command()[-1]
    assert deploy["healthcheckPath"] in {getattr(route, "path", None) for route in health.routes}
    patience = int(FINAL.command()[-1].rpartition("--timeout-graceful-shutdown ")[2])
    assert deploy["drainingSeconds"] >= patience + 5


def test_the_worker_starts_as_in_compose_and_has_longer_to_end_than_a_batch_takes() -> None:
    deploy = SERVICES["worker"]["deploy"]
    words = shlex.split(deploy["startCommand"])
    assert words == ["python", "-m", "worker"]
    assert importlib.util.find_spec(words[2])
    assert deploy["drainingSeconds"] >= COMPLETION_WAIT_SECONDS + 5
    assert (
        not {"healthcheckPath", "preDeployCommand"} & deploy.keys()
    )  # it serves no HTTP, and migrates nothing


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


@contextlib.asynccontextmanager
async def over_ipv6_only(host: str, port: int) -> AsyncIterator[int]:
    """Lead a port of ::1 to the server, as Railway's older environments know a database by IPv6 alone."""
    ways: list[asyncio.Task[None]] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(host, port)
        ways.append(asyncio.create_task(pass_on(reader, to_server)))
        ways.append(asyncio.create_task(pass_on(from_server, writer)))

    async with await asyncio.start_server(accept, "::1", 0) as relay:
        try:
            yield relay.sockets[0].getsockname()[1]
        finally:
            await asyncio.gather(*ways, return_exceptions=True)  # the clients have left


async def test_postgresql_and_redis_are_reached_by_ipv6_alone(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_client, "REDIS_TIMEOUT_SECONDS", HANG_SECONDS)
    database, redis = make_url(database_url), make_url(redis_url)
    async with (
        over_ipv6_only(str(database.host), int(database.port or 0)) as database_port,
        over_ipv6_only(str(redis.host), int(redis.port or 0)) as redis_port,
    ):
        settings = Settings(
            database_url=SecretStr(
                database.set(host="::1", port=database_port).render_as_string(hide_password=False)
            ),
            redis_url=SecretStr(f"redis://:{redis.password}@[::1]:{redis_port}"),
        )
        engine = create_engine(
            settings, application_name="test", pool_size=1, statement_timeout_seconds=HANG_SECONDS
        )
        async with engine.connect() as connection, open_redis(settings.redis_url.get_secret_value()) as bell:
            assert await read_revision(connection) == REVISION
            assert await bell.ping()
        await engine.dispose()


def pre_deploy(database_url: str) -> int:
    (command,) = SERVICES["api"]["deploy"]["preDeployCommand"]
    return run(["-m", *shlex.split(command)], environment(database_url, "redis://127.0.0.1:1")).returncode


async def test_before_a_deploy_the_apis_own_login_can_only_find_that_nothing_is_left_to_migrate(
    database_url: str, sql: asyncpg.Connection
) -> None:
    """Where it owns no table: the deploy stops instead, and the release that runs goes on."""
    login = f"sync_api_{secrets.token_hex(4)}"
    await sql.execute(ROLES_SQL)
    await sql.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'api' IN ROLE collection_sync_api")
    url = make_url(database_url).set(username=login, password="api").render_as_string(hide_password=False)
    assert await asyncio.to_thread(pre_deploy, url) == 0
    await sql.execute("UPDATE collection_sync_version SET version_num = '0004'")
    assert await asyncio.to_thread(pre_deploy, url) == 1
    assert await sql.fetchval("SELECT version_num FROM collection_sync_version") == "0004"
    await sql.execute(f"DROP ROLE {login}")
