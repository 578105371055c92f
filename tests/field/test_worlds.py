"""In every world each step of the journey works, or the product says what is in its way."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from tests.field.journey import Journey
from tests.field.worlds import KINDS, SIBLINGS, World
from tests.forked import run
from tests.processes import HANG_SECONDS, environment
from tests.security.as_role import connected

OF_THIS_SERVER = {"durability", "autovacuum"}  # off, for speed
# One of each way to end, and of each step that may be refused; CI makes the journey in all of KINDS.
CHOSEN = {
    "an ordinary one",
    "plans made otherwise",
    "collections hidden",
    "a target that touches its rows",
    "a row that is refused at COMMIT",
    "the target in a partition for each project",
    "versions behind",
    "the API may not append",
}
CASES = [
    *(
        pytest.param(world, id=name, marks=[] if name in CHOSEN else pytest.mark.wide)
        for name, world in KINDS.items()
    ),
    *(pytest.param(world, id=name, marks=pytest.mark.long) for name, world in SIBLINGS.items()),
]


async def foreseen(env: Mapping[str, str]) -> set[str]:
    """Return the names of what the preflight finds that is not as it should be."""
    looked = await asyncio.to_thread(run, ["-m", "worker.preflight", "--json"], env, timeout=HANG_SECONDS)
    return {check["name"] for check in json.loads(looked.stdout)["checks"] if check["state"] != "ok"}


@asynccontextmanager
async def left_open(database_url: str, held: str) -> AsyncIterator[None]:
    """Keep a transaction open, which has carried out this, while the block lasts."""
    if not held:
        yield
        return
    async with connected(database_url) as connection:
        await connection.execute(f"BEGIN; {held}")
        yield


@pytest.mark.parametrize("world", CASES)
async def test_the_journey_is_made_or_refused_in_words(
    world: World,
    database_url: str,
    *,
    urls: Mapping[str, str],
    redis_url: str,
    sql: asyncpg.Connection,
    tmp_path: Path,
) -> None:
    await sql.execute(world.sql)
    journey = Journey(sql, urls, redis_url, tmp_path / "log")
    async with left_open(database_url, world.held):
        await journey.travel(world.project)
    refused = "\n".join(journey.refusals)
    assert world.refuses in refused if world.refuses else not refused, refused
    if world.refuses and world.is_foreseen:
        assert await foreseen(environment(database_url, redis_url)) - OF_THIS_SERVER
