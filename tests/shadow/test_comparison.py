"""What one comparison says: a difference is a mismatch where neither an event nor a letter explains it."""

import asyncio

import asyncpg
import pytest

from shared.phase import comparison
from shared.phase.phases import COMPARED, Phase
from tests.draining import drain
from tests.race.freezing import BETWEEN_THE_SIDES, arrived, frozen, install_between_the_sides
from tests.shadow.situations import SITUATIONS, Scene, turn


@pytest.mark.parametrize("name", SITUATIONS)
async def test_a_list_is(name: str, scene: Scene, comparing: asyncpg.Connection) -> None:
    situation = SITUATIONS[name]
    await situation.make(scene)
    compared = await comparison.compare(comparing, "p1")
    assert compared is not None
    assert (compared.outcome, tuple(compared.mismatches)) == (situation.outcome, situation.mismatches)
    assert compared.collections == situation.collections
    assert min(compared.legacy_seconds, compared.target_seconds) > 0


@pytest.mark.parametrize("phase", Phase)
async def test_it_is_compared_in_the_phases_that_compare_and_says_which(
    phase: Phase, scene: Scene, comparing: asyncpg.Connection
) -> None:
    epoch = await turn(scene.sql, phase)
    compared = await comparison.compare(comparing, "p1")
    if phase not in COMPARED:
        assert compared is None
        assert await comparing.fetchval(comparison.LOOK) is None
        return
    assert compared is not None
    assert (compared.phase, compared.epoch, compared.falls_back) == (phase, epoch, True)
    assert await comparing.fetchval(comparison.LOOK) == epoch


@pytest.mark.parametrize(("most", "outcome"), [(3, "matched"), (2, "dropped")])
async def test_of_a_longer_list_nothing_is_compared(
    most: int, outcome: str, scene: Scene, comparing: asyncpg.Connection
) -> None:
    del scene
    compared = await comparison.compare(comparing, "p1", most)
    assert compared is not None
    assert compared.outcome == outcome


async def test_nor_of_one_with_more_links_than_that(scene: Scene, comparing: asyncpg.Connection) -> None:
    for number in range(3):
        await scene.write(f"far {number}", project_id="p2")
    await drain(scene.engine)
    await scene.sql.execute(
        "INSERT INTO project_collections (project_id, collection_id)"
        " SELECT 'p1', collection_id FROM collections WHERE project_id = 'p2'"
    )
    compared = await comparison.compare(comparing, "p1", 5)
    assert compared is not None
    assert compared.outcome == "dropped"


async def test_a_write_that_is_applied_between_the_sides_is_no_mismatch(
    scene: Scene, comparing: asyncpg.Connection
) -> None:
    await install_between_the_sides(comparing)
    async with frozen(scene.sql, BETWEEN_THE_SIDES):
        under_way = asyncio.create_task(comparison.compare(comparing, "p1"))
        await arrived(scene.sql, BETWEEN_THE_SIDES)
        await scene.write("b")
        await drain(scene.engine)
    compared = await under_way
    assert compared is not None
    assert compared.outcome == "matched"
