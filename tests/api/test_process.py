"""The API as a process: how it starts, what it prints and how it stops."""

import asyncio
import json
import signal
from pathlib import Path

import asyncpg
import httpx

from tests.api.clients import ALL, OWNER, create
from tests.log_lines import lines_of
from tests.processes import HANG_SECONDS, environment, free_port, running, running_api

START = ["-m", "uvicorn", "api.main:app", "--port"]


def client_of(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS)


async def refusal(env: dict[str, str]) -> str:
    """Start the API in an environment that does not do and return what it printed."""
    with running([*START, str(free_port())], env) as api:
        assert await api.exit_code() != 0
        return api.output


async def test_a_missing_variable_is_named_without_a_traceback() -> None:
    complete = environment("postgresql://u:hidden@127.0.0.1/d", "redis://127.0.0.1")
    for name in ("DATABASE_URL", "REDIS_URL"):
        env = {key: value for key, value in complete.items() if key != name}
        output = await refusal(env)
        assert name in output
        assert "Traceback" not in output
        assert "hidden" not in output


async def test_there_is_no_falling_back_to_another_kind_of_database() -> None:
    output = await refusal(environment("sqlite:///local.db", "redis://127.0.0.1"))
    assert "DATABASE_URL" in output
    assert "postgresql://" in output


async def test_it_starts_while_everything_is_away_and_says_so() -> None:
    port = free_port()
    env = environment("postgresql://u@127.0.0.1:1/d", "redis://127.0.0.1:1")
    with running([*START, str(port)], env) as api:
        async with asyncio.timeout(HANG_SECONDS), client_of(f"http://127.0.0.1:{port}") as client:
            while True:
                try:
                    alive = await client.get("/healthz")
                    break
                except httpx.TransportError:
                    assert api.process.poll() is None, api.output
                    await asyncio.sleep(0.05)
            assert alive.status_code == 200
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get(ALL, headers=OWNER)).status_code == 503


async def test_it_stops_at_once_when_told_to_and_its_log_is_json_in_the_file_too(
    seeded: asyncpg.Connection, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    del seeded
    log_file = tmp_path / "api.jsonl"
    async with running_api(environment(database_url, redis_url, LOG_FILE=str(log_file))) as (api, url):
        async with client_of(url) as client:
            path = await create(client, "Confidential")
        api.signal(signal.SIGTERM)
        await api.exit_code()
        assert "Traceback" not in api.output
        (printed,) = api.logged("collection_written")
    lines = lines_of(log_file)
    assert [json.loads(line) for line in api.lines] == lines
    assert lines[0]["message"].startswith("Started server process")  # uvicorn's first
    assert printed["collection_id"] == path.rpartition("/")[2]
    assert {line["process"] for line in lines} == {"api"}
    assert "Confidential" not in str(lines)


async def test_a_nul_in_the_path_and_an_empty_header_are_refused_over_a_real_socket(
    seeded: asyncpg.Connection, database_url: str, redis_url: str
) -> None:
    del seeded
    async with (
        running_api(environment(database_url, redis_url)) as (_, url),
        client_of(url) as client,
    ):
        assert (await client.get("/projects/a%00b/collections", headers=OWNER)).status_code == 403
        assert (await client.delete(f"{ALL}/%ff%00", headers=OWNER)).status_code == 403
        assert (await client.delete(f"{ALL}/%ff", headers=OWNER)).status_code == 404
        assert (await client.get(ALL, headers={"User-ID": ""})).status_code == 403


async def test_over_a_real_socket_head_has_no_body_and_the_connection_stays_in_step(
    seeded: asyncpg.Connection, database_url: str, redis_url: str
) -> None:
    del seeded
    limits = httpx.Limits(max_connections=1)
    async with (
        running_api(environment(database_url, redis_url)) as (_, url),
        httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS, limits=limits) as client,
    ):
        for path in (ALL, "/readyz", "/openapi.json", "/docs"):
            whole = await client.get(path, headers=OWNER)
            head = await client.head(path, headers=OWNER)
            again = await client.get(path, headers=OWNER)  # a body would be taken for this answer
            assert head.content == b""
            assert head.headers["Content-Length"] == str(len(whole.content))
            assert again.content == whole.content
