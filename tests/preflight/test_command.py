"""`python -m worker.preflight` as an operator types it."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import asyncpg
import pytest

from tests.forked import run
from tests.processes import environment
from worker.preflight.examination import BOTH, DATABASE, REDIS

NAMES = ["database", *DATABASE, "redis", *REDIS, *BOTH]
COMMAND = ["-m", "worker.preflight"]


async def command(env: Mapping[str, str], *arguments: str) -> Any:  # noqa: ANN401 - of subprocess
    return await asyncio.to_thread(run, [*COMMAND, *arguments], env)


async def test_a_line_for_each_check_and_a_count(urls: dict[str, str], redis_url: str) -> None:
    done = await command(environment(urls["operator"], redis_url))
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line for line in done.stdout.splitlines() if line[:1].strip()]
    assert [line.split()[1] for line in lines[:-1]] == NAMES
    assert lines[-1] == f"0 stop, 2 warn, {len(NAMES) - 2} ok."


async def test_json_ends_with_one_line_and_nothing_else(urls: dict[str, str], redis_url: str) -> None:
    done = await command(environment(urls["operator"], redis_url), "--json")
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert (done.returncode, result["verdict"]) == (0, "warn")
    assert [check["name"] for check in result["checks"]] == NAMES
    for check in result["checks"]:
        assert check.keys() == {"name", "state", "sentence", "fix"}
        assert check["state"] in {"ok", "warn", "stop"}
        assert (check["state"] == "ok") == (check["fix"] is None)


async def test_where_something_stops_the_status_is_1_and_without_redis_nothing_does(
    database_url: str, sql: asyncpg.Connection
) -> None:
    env = environment(database_url, "")
    done = await command(env)
    assert (done.returncode, "REDIS_URL is not set here" in done.stdout) == (0, True)
    await sql.execute("ALTER TABLE outbox_events SET UNLOGGED")
    done = await command(env)
    assert done.returncode == 1
    assert "> ALTER TABLE outbox_events SET LOGGED;" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "env"),
    [(("--no-such-option",), {}), ((), {"DATABASE_URL": ""}), ((), {"DATABASE_URL": "mysql://here"})],
)
async def test_wrong_usage_and_wrong_settings_are_2(
    arguments: tuple[str, ...], env: dict[str, str], database_url: str, redis_url: str
) -> None:
    done = await command({**environment(database_url, redis_url), **env}, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


async def test_names_of_others_are_shown_as_they_can_be_and_obeyed_by_nothing(
    database_url: str, redis_url: str, sql: asyncpg.Connection
) -> None:
    await sql.execute(
        'CREATE TABLE "a[/b]\x1b[31m\nstop  everything" (id integer REFERENCES project_collections)'
    )
    done = await command(environment(database_url, redis_url))
    assert '"a[/b]\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}stop  everything"' in done.stdout
    assert "\x1b" not in done.stdout
    assert not [line for line in done.stdout.splitlines() if line.startswith("stop")]
