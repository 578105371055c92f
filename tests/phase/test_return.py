"""Deleted, moved, created again with the reads moved, and turned back at any moment: nothing returns."""

import asyncio

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.draining import drain
from tests.legacy_rows import set_collection
from tests.phase.moving import Lists, listed, move, move_back
from tests.phase.moving import viewed as viewed  # noqa: PLC0414 - a fixture
from tests.processes import HANG_SECONDS
from tests.race import freezing

# Home, text, and whether it is active; after each the worker applies it, and is looked at while it does.
LIFE = (
    ("p1", "first", True),
    ("p1", "first", False),
    ("p2", "back elsewhere", True),
    ("p3", "moved", True),
    ("p3", "changed", True),
    ("p1", "moved home", True),
    ("p1", "moved home", False),
    ("p1", "back", True),
)
FROZEN = [
    point for point in freezing.NUMBERS if not point.startswith(("legacy", "event", "commit: of a write"))
]


async def check(sql: asyncpg.Connection, shown: Lists) -> None:
    """Look at all lists with the reads moved and moved back."""
    for turn in (move_back, move):
        await turn(sql)
        assert await listed(sql) == shown


@pytest.mark.parametrize("point", FROZEN)
async def test_nothing_returns_wherever_a_worker_stands_and_whenever_reads_go_back(
    point: str, viewed: asyncpg.Connection, engine: AsyncEngine, database_url: str
) -> None:
    await freezing.install(viewed)
    freezer = await asyncpg.connect(database_url)
    stood = 0
    for home, text, is_active in LIFE:
        await set_collection(engine, "c", text, project_id=home, is_active=is_active)
        shown: Lists = {home: [("c", text)]} if is_active else {}
        await check(viewed, shown)
        async with freezing.frozen(freezer, point):
            applying = asyncio.create_task(drain(engine))
            stood += await stands(viewed, point, applying)
            await check(viewed, shown)
        await applying
        await check(viewed, shown)
    assert stood
    await freezer.close()


async def stands(sql: asyncpg.Connection, point: str, applying: asyncio.Task[object]) -> bool:
    """Wait until the worker stands at the point, or has gone another way and is done."""
    arriving = asyncio.create_task(freezing.arrived(sql, point))
    async with asyncio.timeout(HANG_SECONDS):
        await asyncio.wait([arriving, applying], return_when=asyncio.FIRST_COMPLETED)
        if applying.done() and not arriving.done():
            arriving.cancel()
            await asyncio.wait([arriving])
            return False
        await arriving
    return True
