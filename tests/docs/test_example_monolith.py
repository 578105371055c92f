"""The example of a monolith with synchronous SQLAlchemy and psycopg, adopted in each of its ways."""

import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location

import asyncpg
import pytest
from fastapi import FastAPI
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session, sessionmaker

from shared.events import EventType
from shared.outbox import append_event_sync
from shared.settings import Settings
from tests.api.clients import started
from tests.draining import drain
from tests.drift import drift
from tests.legacy_rows import seed, set_collection
from tests.programs import ROOT

# As its own program has it: `docs` is no package.
spec = spec_from_file_location("example_monolith", ROOT / "docs" / "examples" / "monolith.py")
assert spec is not None
assert spec.loader is not None
monolith = sys.modules[spec.name] = module_from_spec(spec)
spec.loader.exec_module(monolith)

OWNER = {"User-ID": "owner"}
EVENTS = "SELECT aggregate_id, event_type FROM outbox_events ORDER BY id"


@pytest.fixture
def sessions(database_url: str) -> Iterator[sessionmaker[Session]]:
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    yield sessionmaker(engine)
    engine.dispose()


async def brought_over(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await seed(sql)
    for name in ("c1", "c2"):
        await set_collection(engine, name, "old")
    await drain(engine)


async def use(app: FastAPI) -> None:
    """Link, unlink, describe and delete, as its users do."""
    async with started(app) as client:
        for path in ("c1/research/link?hypothesis_id=h1", "c1/research/unlink?hypothesis_id=h1"):
            assert (await client.post(f"/api/collections/{path}")).status_code == 200
        assert (await client.put("/api/collections/c1/context?text=new")).status_code == 200
        assert (await client.delete("/api/collections/c2")).status_code == 200
        assert (await client.delete("/api/collections/c2")).status_code == 404


async def test_without_a_line_changed_its_writes_are_drift(
    engine: AsyncEngine, sql: asyncpg.Connection, sessions: sessionmaker[Session]
) -> None:
    await brought_over(engine, sql)
    await use(monolith.plain_monolith(sessions))
    assert await sql.fetch(EVENTS) == []
    assert await drift(sql) == ["c1", "c2"]


async def test_with_one_listener_each_of_its_writes_arrives(
    engine: AsyncEngine, sql: asyncpg.Connection, sessions: sessionmaker[Session]
) -> None:
    await brought_over(engine, sql)
    monolith.append_for_each_change(sessions)
    await use(monolith.plain_monolith(sessions))
    assert [tuple(row) for row in await sql.fetch(EVENTS)] == [
        ("c1", EventType.UPDATED),
        ("c1", EventType.UPDATED),
        ("c1", EventType.UPDATED),
        ("c2", EventType.DELETED),
    ]
    await drain(engine)
    assert await drift(sql) == []


async def test_a_new_row_is_a_creation_and_what_is_rolled_back_appends_nothing(
    engine: AsyncEngine, sql: asyncpg.Connection, sessions: sessionmaker[Session]
) -> None:
    await brought_over(engine, sql)
    monolith.append_for_each_change(sessions)
    new = {"project_id": "p1", "collection_name": "n", "created_by": "owner", "is_active": True}
    with sessions() as session:
        session.add(monolith.Collection(collection_id="c3", **new))
        session.flush()
        session.rollback()
        session.add(monolith.Collection(collection_id="c4", **new))
        session.commit()
    assert [tuple(row) for row in await sql.fetch(EVENTS)] == [("c4", EventType.CREATED)]
    await drain(engine)
    assert await drift(sql) == []


async def test_with_our_router_both_applications_are_one(
    engine: AsyncEngine, sql: asyncpg.Connection, sessions: sessionmaker[Session], settings: Settings
) -> None:
    await brought_over(engine, sql)
    app = monolith.monolith_with_our_router(sessions, settings)
    await use(app)
    async with started(app) as client:
        listed = (await client.get("/projects/p1/collections", headers=OWNER)).json()
        assert [(one["collection_id"], one["description"]) for one in listed] == [("c1", "new")]
        made = await client.post("/projects/p1/collections", json={"collection_name": "n"}, headers=OWNER)
        assert made.status_code == 200
    await drain(engine)
    assert await drift(sql) == []


async def test_a_session_is_flushed_before_its_event_is_drawn_and_a_connection_does_as_well(
    engine: AsyncEngine, sql: asyncpg.Connection, sessions: sessionmaker[Session]
) -> None:
    await brought_over(engine, sql)
    with sessions.begin() as session:
        session.get_one(monolith.Collection, "c1").description = "by hand"
        append_event_sync(session, "c1", EventType.UPDATED)
    with sessions.kw["bind"].begin() as connection:
        connection.execute(text("UPDATE collections SET description = 'by SQL' WHERE collection_id = 'c2'"))
        append_event_sync(connection, "c2", EventType.UPDATED)
    payloads = await sql.fetch("SELECT payload->>'research_context' AS text FROM outbox_events ORDER BY id")
    assert [row["text"] for row in payloads] == ["by hand", "by SQL"]
    await drain(engine)
    assert await drift(sql) == []


async def test_its_list_is_the_same_before_the_turn_after_it_and_back_but_for_links(
    engine: AsyncEngine, sql: asyncpg.Connection, sessions: sessionmaker[Session]
) -> None:
    await brought_over(engine, sql)
    monolith.append_for_each_change(sessions)
    await sql.execute("INSERT INTO project_collections (project_id, collection_id) VALUES ('p2', 'c1')")
    app = monolith.plain_monolith(sessions)
    async with started(app) as client:

        async def listed(project: str) -> list[tuple[str, str | None]]:
            answer = await client.get(f"/api/projects/{project}/collections")
            return [(one["id"], one["context"]) for one in answer.json()]

        for turn in range(6):  # so often that psycopg has prepared the statement
            for phase, linked in (("shadow_reads", []), ("reads_moved", [("c1", None)])):
                await sql.execute("UPDATE migration_phase SET phase = $1", phase)
                context = f"turn {turn}, {phase}"
                await client.put(f"/api/collections/c1/context?text={context}")  # and no worker runs
                assert await listed("p1") == [("c1", context), ("c2", "old")]
                assert await listed("p2") == linked
                await drain(engine)
                assert await listed("p1") == [("c1", context), ("c2", "old")]
