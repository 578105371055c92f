"""The how-to guides are true to the code: what they name is there, and what they say to paste works."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, MetaData, NullPool, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from shared.events import EventType
from tests.draining import drain
from tests.drift import drift
from tests.forked import ROOT
from tests.legacy_rows import seed, set_collection
from worker.preflight.needs import OURS

GUIDES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
FILE = re.compile(r"`((?:api|worker|shared|migrations|deploy|tests)/[\w./-]*)`")
NAME = re.compile(r"`([A-Za-z_]{4,})`")
OF_SQL = {"INSERT", "UPDATE", "SELECT"}
CHANGE = text("UPDATE collections SET description = 'new' WHERE collection_id = 'c1'")


def names_in_tables(page: str) -> Iterator[tuple[str, list[Path]]]:
    """Yield what the row of a table names, and the files that it names it in."""
    for row in re.findall(r"^\| (`.*) \|$", page, re.MULTILINE):
        first, _, rest = row.partition(" | ")
        files = [ROOT / name for name in FILE.findall(first)]
        if files:
            yield from ((name, files) for name in set(NAME.findall(rest)) - OF_SQL)


def read(path: Path) -> str:
    """Return the text of a file, or of all files of a directory."""
    files = path.glob("**/*.py") if path.is_dir() else [path]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_every_file_and_every_name_of_a_guide_is_there(guide: Path) -> None:
    page = guide.read_text(encoding="utf-8")
    assert [name for name in FILE.findall(page) if not (ROOT / name).exists()] == []
    missing = [
        name
        for name, files in names_in_tables(page)
        if not any(re.search(rf"\b{name}\b", read(file)) for file in files)
    ]
    assert missing == []


def test_the_guides_to_changes_name_what_is_to_be_changed() -> None:
    for guide, least in (("add-a-projected-column", 10), ("add-a-second-table", 15)):
        page = (ROOT / "docs" / "how-to" / f"{guide}.md").read_text(encoding="utf-8")
        assert len(list(names_in_tables(page))) >= least, "the tables are not read as they are written"


def block(language: str, holds: str) -> str:
    page = (ROOT / "docs" / "how-to" / "adopt-in-a-monolith.md").read_text(encoding="utf-8")
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    (found,) = (text for text in blocks if holds in text)
    return found


async def test_a_writer_of_the_monolith_s_own_appends_its_event_as_the_guide_says(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    await set_collection(engine, "c1", "old")
    names: dict[str, object] = {}
    exec(compile(block("python", "AsyncSession"), "adopt-in-a-monolith.md", "exec"), names)  # noqa: S102 - our own page
    append = names["append"]
    assert callable(append)

    async with AsyncSession(engine) as session, session.begin():
        await session.execute(CHANGE)
        await append(session, "c1", EventType.UPDATED)

    await drain(engine)
    assert await drift(sql) == []
    assert await sql.fetchval("SELECT research_context FROM project_collections") == "new"


async def test_a_synchronous_writer_appends_its_event_as_the_guide_says(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    await seed(sql)
    await set_collection(engine, "c1", "old")

    class Base(DeclarativeBase):
        pass

    class Collection(Base):
        __tablename__ = "collections"
        collection_id: Mapped[str] = mapped_column(primary_key=True)
        description: Mapped[str | None]

    names: dict[str, Any] = {"Collection": Collection}
    exec(compile(block("python", "append_event_sync"), "adopt-in-a-monolith.md", "exec"), names)  # noqa: S102 - our own page
    bind = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"), poolclass=NullPool)
    with Session(bind) as session, session.begin():
        names["describe"](session, session.get_one(Collection, "c1"), "new")

    await drain(engine)
    assert await sql.fetchval("SELECT research_context FROM project_collections") == "new"


async def test_the_statement_of_the_guide_appends_the_same_event(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    ours = await set_collection(engine, "c1", "text")
    await sql.execute(block("sql", "outbox_events").replace("$1", "'c1'"))
    same = "aggregate_id, event_type, source, payload, schema_version, lane"
    rows = await sql.fetch(f"SELECT {same} FROM outbox_events ORDER BY id")  # noqa: S608 - constants
    assert rows[0] == rows[1]
    await sql.execute("DELETE FROM outbox_events WHERE id = $1", ours)
    await drain(engine)
    assert await drift(sql) == []


ENV = """
from alembic import context

{block}
attributes = context.config.attributes
with attributes["connection"].begin_nested():
    context.configure(
        connection=attributes["connection"],
        target_metadata=attributes["metadata"],
        include_name={include_name},
    )
    context.run_migrations()
"""
REVISION = """
revision, down_revision = ${repr(up_revision)}, None
def upgrade():
    ${upgrades}
def downgrade():
    ${downgrades}
"""


def proposal(connection: Connection, directory: Path, include_name: str) -> str:
    """Return what `alembic revision --autogenerate` of the monolith proposes."""
    (directory / "versions").mkdir(parents=True)
    written = ENV.format(block=block("python", "is_the_monoliths"), include_name=include_name)
    (directory / "env.py").write_text(written, encoding="utf-8")
    (directory / "script.py.mako").write_text(REVISION, encoding="utf-8")
    monolith = MetaData()
    monolith.reflect(connection, only=lambda name, _: name not in OURS)
    config = Config(attributes={"connection": connection, "metadata": monolith})
    config.set_main_option("script_location", str(directory))
    command.revision(config, autogenerate=True)
    (revision,) = (directory / "versions").glob("*.py")
    return revision.read_text(encoding="utf-8").partition("def downgrade")[0]


@pytest.mark.filterwarnings("ignore:Can't validate argument 'dialect_options'")  # alembic's own
async def test_the_monolith_s_alembic_leaves_our_tables_alone_as_the_guide_says(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    async with engine.connect() as connection:
        for include_name, dropped in (("None", set(OURS)), ("is_the_monoliths", set())):
            proposed = await connection.run_sync(proposal, tmp_path / include_name, include_name)
            assert {*re.findall(r"drop_table\('(\w+)'", proposed)} == dropped
        assert re.findall(r"^    op\.", proposed, re.MULTILINE) == []


def test_the_glossary_is_in_order_and_has_each_word_that_contributors_are_to_use() -> None:
    words = re.findall(r"^\| \*\*(.+?)\*\* \| .+ \| .*\[.+\]\(.+\).* \|$", GLOSSARY, re.MULTILINE)
    assert len(words) == GLOSSARY.count("\n| **"), "a word without a sentence or a link"
    assert words == sorted(words)
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    wanted = contributing.split("- Words: ")[1].rstrip(".\n")
    known = {*words, "press", "ring"}  # both are told of under doorbell
    assert {word.strip() for word in re.split(r";|,| and ", " ".join(wanted.split()))} <= known
