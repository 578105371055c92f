"""A URL as platforms hand it out serves every process."""

import subprocess

import asyncpg
import httpx
import pytest
from sqlalchemy.engine import make_url

from shared.migration_state import VERSION_TABLE
from tests.databases import Databases
from tests.forked import run
from tests.legacy_rows import seed
from tests.processes import HANG_SECONDS, environment, free_port, running_api, running_worker

# Of Heroku, DigitalOcean, RDS and Supabase, and two hosts, of which the first is away.
QUERY = "sslmode=prefer&connect_timeout=10&application_name=theirs&options=-c%20geqo%3Doff&keepalives_idle=30"


def as_handed_out(database_url: str) -> str:
    url = make_url(database_url)
    hosts = f"127.0.0.1:{free_port()},{url.host}:{url.port}"
    return f" postgres://{url.username}:{url.password}@{hosts}/{url.database}?{QUERY}\n"


def succeeded(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.wide
async def test_it_serves_migrations_api_worker_and_commands(databases: Databases, redis_url: str) -> None:
    with databases.clone("template0") as database_url:
        env = environment(as_handed_out(database_url), redis_url)
        succeeded(run(["-m", "alembic", "upgrade", "head"], env, timeout=HANG_SECONDS))
        sql = await asyncpg.connect(database_url)
        assert await sql.fetchval(f"SELECT count(*) FROM {VERSION_TABLE}") == 1  # noqa: S608
        await seed(sql)
        async with running_worker(env) as worker, running_api(env) as (_, url):
            async with httpx.AsyncClient(base_url=url, headers={"User-ID": "owner"}) as client:
                new = {"collection_name": "one"}
                assert (await client.post("/projects/p1/collections", json=new)).status_code == 200
            await worker.wait_for("event_settled")
            names = {row[0] for row in await sql.fetch("SELECT application_name FROM pg_stat_activity")}
            assert {"collection-sync api", "collection-sync worker"} <= names
            assert "theirs" not in names
            succeeded(run(["-m", "worker.backfill", "--wait"], env, timeout=HANG_SECONDS))
            succeeded(run(["-m", "worker.audit"], env, timeout=HANG_SECONDS))
        await sql.close()
