"""What lists show of each collection, before the turn, after it, and back: by SQL and over HTTP."""

from collections import defaultdict

import asyncpg
import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api.main import create_app
from shared.settings import Settings
from tests.api.clients import started
from tests.api.unhurried import take_time
from tests.phase.moving import Lists, listed, move, move_back
from tests.phase.moving import viewed as viewed  # noqa: PLC0414 - a fixture
from tests.phase.scenes import SCENES, Stage

PROJECTS = ("p1", "p2", "p3")


async def listed_over_http(client: httpx.AsyncClient) -> Lists:
    lists: Lists = defaultdict(list)
    for project in PROJECTS:
        answer = await client.get(f"/projects/{project}/collections", headers={"User-ID": "owner"})
        assert answer.status_code == 200, answer.text
        for item in answer.json():
            lists[project].append((item["collection_id"], item["description"]))
    return dict(lists)


@pytest.mark.parametrize("name", SCENES)
async def test_lists_show_what_the_phase_says_and_of_what_is_unsettled_the_legacy_row(
    name: str,
    settings: Settings,
    viewed: asyncpg.Connection,
    engine: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take_time(monkeypatch.setattr)
    scene, stage = SCENES[name], Stage(engine, viewed)
    for act in scene.acts:
        await act(stage)
    async with started(create_app(settings.model_copy(update={"shadow_share": 0.0}))) as client:
        for turn, shown in ((None, scene.legacy), (move, scene.moved), (move_back, scene.legacy)):
            if turn is not None:
                await turn(viewed)
            assert await listed(viewed) == shown
            assert await listed_over_http(client) == shown


async def test_without_its_row_reads_are_not_moved(viewed: asyncpg.Connection, engine: AsyncEngine) -> None:
    await Stage(engine, viewed).settled("text")
    await Stage(engine, viewed).link("p2", "linked")
    await move(viewed)
    await viewed.execute("DELETE FROM migration_phase")
    assert await listed(viewed) == {"p1": [("c", "text")]}
