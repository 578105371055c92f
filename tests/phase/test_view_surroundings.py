"""What the monolith alters, who else reads, and where the tables lie: the view goes on answering."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api.main import create_app
from deploy.local.postgres import Postgres
from shared.phase.view import FUNCTION, VIEW, function
from shared.place import PLACE, Place
from shared.settings import Settings
from tests.acceptance.test_dump_and_restore import restore
from tests.api.clients import started
from tests.databases import Databases
from tests.phase.moving import Lists, listed, move, move_back
from tests.phase.moving import viewed as viewed  # noqa: PLC0414 - a fixture
from tests.phase.scenes import Stage
from tests.security.as_role import connected
from tests.security.conftest import urls as urls  # noqa: PLC0414 - a fixture

LEGACY: Lists = {"p1": [("c", "text")], "p2": [("unsettled", "new")]}
MOVED: Lists = {"p1": [("c", "text")], "p2": [("c", "linked"), ("unsettled", "new")]}
ALTERATIONS = (
    "ALTER TABLE collections ADD COLUMN tenant integer DEFAULT 7",
    "ALTER TABLE collections DROP COLUMN note_count",
    "ALTER TABLE collections ALTER COLUMN description TYPE varchar(4000)",
    "ALTER TABLE collections ALTER COLUMN collection_id TYPE text",
    "ALTER TABLE collections ALTER COLUMN icon TYPE text",
    "ALTER TABLE project_collections ADD COLUMN note text",
    "ALTER TABLE project_collections DROP COLUMN tags",
    "ALTER TABLE project_collections ALTER COLUMN research_context TYPE varchar(4000)",
    "ALTER TABLE project_collections ALTER COLUMN collection_id TYPE text",
    "ALTER TABLE collections ALTER COLUMN linked_question_ids TYPE jsonb USING linked_question_ids::jsonb",
    "VACUUM FULL collections; VACUUM FULL project_collections",
    "REINDEX TABLE collections; REINDEX TABLE project_collections",
)
STRANGER = "CREATE ROLE stranger_to_lists LOGIN"
READER = (
    f"GRANT SELECT ON {VIEW} TO stranger_to_lists; GRANT EXECUTE ON FUNCTION {FUNCTION} TO stranger_to_lists"
)
SECURED = """
    ALTER TABLE collections ENABLE ROW LEVEL SECURITY;
    ALTER TABLE project_collections ENABLE ROW LEVEL SECURITY
"""
ASK = "SELECT project_id, collection_id, research_context FROM visible_collections WHERE project_id = $1"
ELSEWHERE = "CREATE SCHEMA elsewhere; ALTER TABLE project_collections SET SCHEMA elsewhere"


@pytest.fixture
async def mixed(viewed: asyncpg.Connection, engine: AsyncEngine) -> asyncpg.Connection:
    """A collection that is linked, and one that is unsettled."""
    stage = Stage(engine, viewed)
    await stage.settled("text")
    await stage.link("p2", "linked")
    await stage.write("new", "p2", name="unsettled")
    return viewed


@pytest.fixture
async def stranger(sql: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """The connection itself, as a login that was granted nothing; `RESET` makes it the owner again."""
    await sql.execute(STRANGER)
    yield sql
    await sql.execute("RESET SESSION AUTHORIZATION")
    await sql.execute("DROP OWNED BY stranger_to_lists; DROP ROLE stranger_to_lists")


async def test_whatever_the_monolith_alters_lists_and_prepared_statements_go_on(
    settings: Settings, mixed: asyncpg.Connection, database_url: str
) -> None:
    quiet = settings.model_copy(update={"shadow_share": 0.0})
    async with started(create_app(quiet)) as client, connected(database_url) as reader:
        prepared = await reader.prepare(ASK)
        for turn, shown in ((move, MOVED), (move_back, LEGACY), (move, MOVED)):
            await turn(mixed)
            for alteration in ALTERATIONS if turn is move else ("SELECT",):
                for statement in alteration.split(";"):
                    await mixed.execute(statement)
                assert await listed(mixed) == shown, alteration
                found = [tuple(row)[1:] for row in await prepared.fetch("p2")]
                assert sorted(found) == shown["p2"], alteration
                assert await over_http(client) == shown["p2"], alteration
            if turn is move:
                await mixed.execute(
                    "ALTER TABLE collections DROP COLUMN tenant, ADD COLUMN note_count integer"
                )
                await mixed.execute("ALTER TABLE project_collections DROP COLUMN note, ADD COLUMN tags json")


async def over_http(client: httpx.AsyncClient) -> list[tuple[str, str]]:
    answer = await client.get("/projects/p2/collections", headers={"User-ID": "owner"})
    assert answer.status_code == 200, answer.text
    return sorted((item["collection_id"], item["description"]) for item in answer.json())


async def test_only_the_key_of_projects_is_held_by_the_view(mixed: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.FeatureNotSupportedError, match=VIEW):
        await mixed.execute("ALTER TABLE projects ALTER COLUMN project_id TYPE text")


async def test_who_was_granted_nothing_reads_nothing_by_view_or_function(
    mixed: asyncpg.Connection, stranger: asyncpg.Connection
) -> None:
    del mixed
    await stranger.execute(f"GRANT SELECT ON {VIEW} TO stranger_to_lists")
    await stranger.execute("SET SESSION AUTHORIZATION stranger_to_lists")
    for statement in (ASK, "SELECT FROM collections_of_project($1)"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await stranger.fetch(statement, "p1")


@pytest.mark.parametrize("surroundings", ["SELECT", SECURED], ids=["as it is", "with row-level security"])
async def test_a_reader_needs_view_and_function_and_sees_all_that_its_owner_sees(
    surroundings: str, mixed: asyncpg.Connection, stranger: asyncpg.Connection
) -> None:
    await mixed.execute(surroundings)
    await stranger.execute(READER)
    for turn, shown in ((move, MOVED), (move_back, LEGACY)):
        await turn(mixed)
        await stranger.execute("SET SESSION AUTHORIZATION stranger_to_lists")
        assert await listed(stranger) == shown
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await stranger.fetch("SELECT collection_id FROM collections")
        await stranger.execute("RESET SESSION AUTHORIZATION")


async def test_decoys_in_a_reader_s_search_path_deceive_nobody(
    mixed: asyncpg.Connection, stranger: asyncpg.Connection
) -> None:
    await move(mixed)
    await stranger.execute(READER)
    await stranger.execute("SET SESSION AUTHORIZATION stranger_to_lists")
    for table in ("collections", "project_collections", "migration_phase", "outbox_events", "projects"):
        await stranger.execute(f"CREATE TEMPORARY TABLE {table} (project_id text, collection_id text)")
    assert await listed(stranger) == MOVED
    await stranger.execute("DISCARD TEMP")


@pytest.mark.parametrize("turn", [move, move_back])
async def test_a_restored_dump_answers_as_the_database_did_and_the_same_roles(
    turn: object,
    mixed: asyncpg.Connection,
    *,
    urls: dict[str, str],
    postgres: Postgres,
    databases: Databases,
    database_url: str,
) -> None:
    if turn is move:
        await move(mixed)
    with databases.clone("template0") as elsewhere:
        await asyncio.to_thread(restore, postgres, database_url, elsewhere)
        async with connected(elsewhere) as restored:
            assert await listed(restored) == (MOVED if turn is move else LEGACY)
            place = Place(*await restored.fetchrow(PLACE))
            assert await restored.fetchval(
                "SELECT prosrc FROM pg_proc WHERE proname = $1", FUNCTION
            ) in function(place)
            granted = "SELECT has_function_privilege($1, $2, 'EXECUTE')"
            shown = {
                role: await restored.fetchval(granted, f"collection_sync_{role}", f"{FUNCTION}(text)")
                for role in urls
            }
            assert {role for role, may in shown.items() if may} == {"api"}


async def test_a_target_in_another_schema_is_found_by_the_function_that_is_made_for_it(
    mixed: asyncpg.Connection,
) -> None:
    await mixed.execute(ELSEWHERE)
    await mixed.execute("SET search_path = public, elsewhere")
    place = Place(*await mixed.fetchrow(PLACE))
    assert place == ("public", "public", "elsewhere")
    await mixed.execute(function(place))
    await move(mixed)
    assert await listed(mixed) == MOVED
