"""Each world that would bite is named by its check, with words and a cure; all at once as well as alone."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import asyncpg
import pytest

from shared.settings import Settings
from tests.forked import run
from tests.preflight.conftest import OF_THE_TESTS_SERVER, checked
from tests.preflight.worlds import SINCE, WORLDS, World
from tests.processes import environment
from worker.preflight.check import Severity
from worker.preflight.examination import DATABASE

TEN = (
    "a trigger that drops rows", "a child that holds", "row-level security", "default_transaction_read_only",
    "a right that was taken away", "no key on the target", "an unlogged outbox", "a rule",
    "a column that nobody fills", "published without a key",
)  # fmt: skip


@pytest.fixture
async def undone(sql: asyncpg.Connection) -> AsyncIterator[list[str]]:
    """What a test puts in here is carried out at its end."""
    statements: list[str] = []
    yield statements
    for statement in statements:
        await sql.execute(statement)


async def make(world: World, names: Mapping[str, Any], sql: asyncpg.Connection, undone: list[str]) -> None:
    undone += [world.undo] if world.undo else []
    await sql.execute(world.sql.format_map(names))


async def test_nothing_stops_in_a_fresh_database(names: Mapping[str, Any], settings: Settings) -> None:
    del names  # asked for so that the roles and their logins are there
    checks = await checked(settings)
    assert {name for name, check in checks.items() if check.state} == OF_THE_TESTS_SERVER
    assert max(check.state for check in checks.values()) is Severity.WARN


@pytest.mark.parametrize("name", WORLDS)
async def test_a_world_that_would_bite_is_named_and_its_fix_cures_it(
    name: str, names: Mapping[str, Any], settings: Settings, sql: asyncpg.Connection, undone: list[str]
) -> None:
    world = WORLDS[name]
    if (since := SINCE.get(name, 0)) > sql.get_server_version().major:
        pytest.skip(f"that is possible from PostgreSQL {since} on")
    await make(world, names, sql, undone)
    check = (await checked(settings))[world.check]
    assert check.state.word == world.state, check
    assert world.words.format_map(names) in check.sentence
    assert check.fix or world.words == "could not look"
    if world.cure is not None:
        assert check.fix is not None
        assert world.cure in check.fix
        if not world.cure:
            await sql.execute(check.fix)
            assert (await checked(settings))[world.check].state is Severity.OK


def test_every_check_has_a_world_that_trips_it_or_a_test_of_its_own() -> None:
    of_their_own = {"server", "clock", "wraparound", "pooler"}
    assert {world.check for world in WORLDS.values()} == DATABASE.keys() - of_their_own


async def test_ten_bad_worlds_at_once_are_all_named_in_one_run(
    names: Mapping[str, Any],
    sql: asyncpg.Connection,
    undone: list[str],
    database_url: str,
    redis_url: str,
) -> None:
    for name in TEN:
        await make(WORLDS[name], names, sql, undone)
        undone.clear()
    command = ["-m", "worker.preflight"]
    env = environment(database_url, redis_url)
    done = await asyncio.to_thread(run, command, env)
    for name in TEN:
        world = WORLDS[name]
        (line,) = [line for line in done.stdout.splitlines() if line.split()[1:2] == [world.check]]
        assert line.startswith(world.state)
        assert world.words.format_map(names) in line
    assert (done.returncode, done.stderr) == (1, "")
    as_json = json.loads((await asyncio.to_thread(run, [*command, "--json"], env)).stdout)
    assert as_json["verdict"] == "stop"
    assert {WORLDS[name].check for name in TEN} <= {
        check["name"] for check in as_json["checks"] if check["fix"]
    }
