"""A column more, by the how-to: deployed beside this release while users write, brought over, and proved."""

import asyncio
import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.databases import Databases
from tests.drift import drained
from tests.forked import ROOT
from tests.legacy_rows import seed
from tests.processes import HANG_SECONDS, environment, running, running_api, running_worker
from tests.projection.another_column import SECOND, edit, make
from tests.versions.rotation import HOT, Rotation

ADD = """
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active, color)
    VALUES ($1, 'p1', 'name', 'owner', true, $2)
"""
COPY = """
    INSERT INTO project_collections (project_id, collection_id, research_context, created_at, updated_at)
    SELECT project_id, collection_id, description, created_at, updated_at FROM collections
    WHERE collection_id = $1
"""
BURY = """
    INSERT INTO outbox_dead_letters (id, aggregate_id, event_type, source, payload, created_at, error)
    SELECT nextval('outbox_events_id_seq'), 'before', 'collection.updated', 'api', '{}', now(), 'poison'
    RETURNING id
"""
COLORS = """
    SELECT collections.collection_id, home.collection_id IS NOT NULL AS is_there,
        (home.research_context, home.color) IS NOT DISTINCT FROM (description, collections.color) AS agrees
    FROM collections LEFT JOIN project_collections AS home USING (project_id, collection_id)
    WHERE is_active
"""
HOME = "SELECT color FROM project_collections WHERE collection_id = $1"
PAINT = "UPDATE project_collections SET color = '#ff0000' WHERE collection_id = 'before'"


async def run(env: dict[str, str], root: Path, *arguments: str, code: int = 0) -> list[str]:
    with running(list(arguments), env, root) as command:
        assert await command.exit_code() == code, command.output
    return command.lines


def test_each_change_of_the_how_to_finds_its_place(tmp_path: Path) -> None:
    edit(make(tmp_path), SECOND)


@pytest.mark.slow
@pytest.mark.wide
async def test_a_column_more_is_written_brought_over_shown_and_proved(
    databases: Databases, redis_url: str, tmp_path: Path
) -> None:
    later = make(tmp_path)
    env = environment(databases.create_empty(f"column_{tmp_path.name}"), redis_url)
    await run(env, ROOT, "-m", "alembic", "upgrade", "head")
    sql = await asyncpg.connect(env["DATABASE_URL"])
    try:
        await seed(sql)
        for collection_id in ("before", *HOT):
            await sql.execute(ADD, collection_id, "#0000ff")
        await sql.execute(COPY, "before")
        await deploy(sql, env, later)
        await bring_over(sql, env, later)
        await prove(sql, env, later)
    finally:
        await sql.close()


async def deploy(sql: asyncpg.Connection, env: dict[str, str], later: Path) -> None:
    """Change releases while users write: no write fails, and what the later release writes has the column."""
    rotation, stack = Rotation(), contextlib.AsyncExitStack
    async with stack() as old, stack() as new, stack() as writing:
        worker, (_, url) = await start(old, env, ROOT)
        await old.enter_async_context(rotation.holding("before", url))
        await writing.enter_async_context(rotation.writing())
        await rotation.answered("before", 20)
        await run(env, later, "-m", "alembic", "upgrade", "head")
        await rotation.answered("before", 20)
        _, (_, url) = await start(new, env, later)
        await new.enter_async_context(rotation.holding("later", url))
        await rotation.answered("before", 30)
        await rotation.answered("later", 30)
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0
        await rotation.answered("later", 20)
        await old.aclose()
        created = await rotation.request("POST", "", collection_name="new", color="#00ff00")
        await writing.aclose()
        await drained(sql)
    assert rotation.wrong == []
    assert created is not None
    assert await sql.fetchval(HOME, created.json()["collection_id"]) == "#00ff00"


async def start(stack: contextlib.AsyncExitStack, env: dict[str, str], root: Path) -> Any:  # noqa: ANN401
    """Start a worker and an API of a release."""
    worker = await stack.enter_async_context(running_worker(env, root))
    return worker, await stack.enter_async_context(running_api(env, root))


async def bring_over(sql: asyncpg.Connection, env: dict[str, str], later: Path) -> None:
    """Let a backfill find what was there before, and a replay show what it would append."""
    assert await sql.fetchval(HOME, "before") is None
    letter = str(await sql.fetchval(BURY))
    shown = await run(env, later, "-m", "worker.dead_letters", "show", letter, "--json")
    assert json.loads("".join(shown))["present_state"]["color"] == "#0000ff"
    async with running_worker(env, later):
        await run(env, later, "-m", "worker.backfill", "--wait")
        async with asyncio.timeout(HANG_SECONDS):
            while await sql.fetchval("SELECT count(*) FROM outbox_events"):
                await asyncio.sleep(0.02)
    assert await sql.fetchval(HOME, "before") == "#0000ff"
    assert [row["collection_id"] for row in await sql.fetch(COLORS) if not row["agrees"]] == []


async def prove(sql: asyncpg.Connection, env: dict[str, str], later: Path) -> None:
    """Let the audit compare the column from the second release on, and see it when it differs."""
    await sql.execute(PAINT)
    await run(env, later, "-m", "worker.audit")
    edit(later, SECOND)
    lines = await run(env, later, "-m", "worker.audit", "--json", code=1)
    assert any('"color"' in line for line in lines), lines
    async with running_worker(env, later):
        await run(env, later, "-m", "worker.audit", "--repair")
    await run(env, later, "-m", "worker.audit")
    assert await sql.fetchval(HOME, "before") == "#0000ff"
