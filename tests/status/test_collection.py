"""`python -m worker.status COLLECTION_ID`: the collection in every table, and why it is as it is."""

import asyncpg
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import Settings
from shared.status.collection import Collection, read
from shared.status.collection_lines import lines
from shared.status.session import engine_of
from shared.status.why import why
from shared.verdict.answer import Answer
from tests.dead_letters.test_replay import dead
from tests.draining import drain
from tests.legacy_rows import set_collection
from tests.status.scenes import audited, in_sync


async def found(database_url: str, collection_id: str = "c1") -> Collection:
    settings = Settings(database_url=SecretStr(database_url), redis_url=SecretStr("redis://127.0.0.1:1"))
    async with engine_of(settings) as engine:
        return await read(engine, collection_id)


async def said(database_url: str, collection_id: str = "c1") -> Answer:
    return why(await found(database_url, collection_id))


async def test_one_collection_through_its_life(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    assert (await said(database_url)).word == "no_such_collection"
    await set_collection(engine, "c1", "text")
    await sql.execute("DELETE FROM outbox_events")
    assert (await said(database_url)).word == "not_backfilled"
    event_id = await set_collection(engine, "c1", "text")
    answer = await said(database_url)
    assert (answer.word, f"event {event_id} of" in answer.sentence) == ("pending", True)
    await in_sync(engine, sql)
    assert (await said(database_url)).word == "in_sync"

    await sql.execute("UPDATE project_collections SET research_context = 'other' WHERE collection_id = 'c1'")
    await audited(engine)
    answer, whole = await said(database_url), await found(database_url)
    assert (answer.word, answer.next_steps) == ("drift", ["python -m worker.audit --repair"])
    assert [finding["kind"] for finding in whole.findings or ()] == ["mismatched"]
    letter = await dead(engine, sql)
    answer = await said(database_url)
    assert (answer.word, answer.next_steps[0]) == ("dead", f"python -m worker.dead_letters show {letter}")
    await set_collection(engine, "c1", is_active=False)
    assert (await said(database_url)).word == "pending"
    await drain(engine)
    answer = await said(database_url)
    assert (answer.word, "deleted in both" in answer.sentence) == ("in_sync", True)
    await sql.execute("INSERT INTO project_collections (project_id, collection_id) VALUES ('p1', 'c1')")
    assert "is there still" in (await said(database_url)).sentence


async def test_a_link_to_another_project_is_no_home_row(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    await in_sync(engine, sql)
    await sql.execute("INSERT INTO project_collections (project_id, collection_id) VALUES ('p2', 'c1')")
    whole = await found(database_url)
    assert why(whole).word == "in_sync"
    assert {row["project_id"] for row in whole.target or ()} == {"p1", "p2"}
    await sql.execute("DELETE FROM project_collections WHERE project_id = 'p1' AND collection_id = 'c1'")
    assert "its home row is missing" in (await said(database_url)).sentence


async def test_what_a_reader_may_not_see_is_a_dash_and_no_verdict(
    engine: AsyncEngine, sql: asyncpg.Connection, urls: dict[str, str]
) -> None:
    await in_sync(engine, sql)
    assert (await said(urls["operator"])).word == "in_sync"
    whole = await found(urls["reader"])
    assert why(whole).word == "unknown"
    shown = "\n".join(lines(whole))
    assert "research_context -" in shown
    assert "description -" in shown
    assert "text" not in shown.replace("research_context", "")


async def test_nobody_waits_for_a_locked_target(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    await in_sync(engine, sql)
    async with sql.transaction():
        await sql.execute("LOCK TABLE project_collections IN ACCESS EXCLUSIVE MODE")
        whole = await found(database_url)
    assert (whole.target, whole.agrees, why(whole).word) == (None, None, "unknown")
    assert "project_collections: - (another session locks its table)" in "\n".join(lines(whole))


async def test_times_that_python_has_not_are_shown_as_postgresql_writes_them(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    await in_sync(engine, sql)
    for time in ("infinity", "10000-01-01", "0044-03-15 BC"):
        await sql.execute(
            "UPDATE collections SET created_at = CAST($1::text AS timestamptz) WHERE collection_id = 'c1'",
            time,
        )
        whole = await found(database_url)
        assert why(whole).word == "drift"
        assert f"created_at {time[:8]}" in "\n".join(lines(whole))
