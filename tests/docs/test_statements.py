"""The page of statements has every statement that is carried out, and names indexes that there are."""

import ast
import re

import asyncpg

from deploy.docs.__main__ import DIRECTORY
from deploy.docs.statements import Source, sources, statements

CARRIES_OUT = {"execute", "fetch", "fetchrow", "fetchval", "exec_driver_sql", "scalar", "scalars", "stream"}
# A name as PostgreSQL or a migration of ours would give an index: of one word none is.
INDEX = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")
INDEXES = "SELECT relname FROM pg_class WHERE relkind = 'i'"
TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r'"


def carried_out(source: Source) -> set[str]:
    """Return the module's own constants that it hands to a connection."""
    calls = [node for node in ast.walk(source.tree) if isinstance(node, ast.Call)]
    handed = {
        call.args[0].id
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr in CARRIES_OUT
        if call.args and isinstance(call.args[0], ast.Name)
    }
    return handed & dict(source.constants()).keys()


def test_every_constant_that_is_carried_out_is_on_the_page() -> None:
    page = (DIRECTORY / "reference" / "statements.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## `(\S+)`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    count = 0
    for source in sources():
        for name in carried_out(source):
            assert f"\n### {name}\n" in sections[source.path], (source.path, name)
            count += 1
    assert count > 90


def test_each_statement_comes_with_a_sentence() -> None:
    without = [
        (one.path, one.name) for source in sources() for one in statements(source) if not one.said.strip()
    ]
    assert without == []


async def test_the_indexes_that_are_said_to_serve_are_there(sql: asyncpg.Connection) -> None:
    there = {row["relname"] for row in await sql.fetch(INDEXES)}
    tables = {row["relname"] for row in await sql.fetch(TABLES)}
    wrong: set[tuple[str, str, str]] = set()
    for source in sources():
        for one in statements(source):
            for said in re.findall(r"erved by (.+?)(?:[.;:(`]|$)", one.said):
                wrong |= {(one.path, one.name, word) for word in set(INDEX.findall(said)) - there - tables}
    assert wrong == set()
