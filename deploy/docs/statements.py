"""Every SQL statement of the product, found in its source: constants in upper case that hold one.

Nothing is registered anywhere: a statement is found because it stands in a module.
"""

import ast
import importlib
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Executable
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.sql.elements import TextClause

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "worker", "shared")
VERBS = re.compile(r"\s*(WITH|SELECT|INSERT|UPDATE|DELETE|CREATE|SET|LOCK|DISCARD|SHOW|FETCH)\b")
DIALECT = dialect()  # type: ignore[no-untyped-call]
COMPOSERS = frozenset({"select", "insert", "update", "delete", "text"})
NO_CHECK = re.compile(r"\s*# noqa\b.*")


class Statement(NamedTuple):
    """A statement as PostgreSQL gets it, but for words in braces, which its function puts in.

    parameters: the names of `$1`, `$2` and so on, where the code gives them by name. said: the comment above,
    or else the first sentence of the docstring of what uses it.
    """

    path: str
    name: str
    sql: str
    parameters: tuple[str, ...]
    said: str


class Composed(NamedTuple):
    """A function that makes statements while it runs, and what its docstring says."""

    path: str
    name: str
    said: str


class Source:
    """A module of the product as it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path.relative_to(ROOT).as_posix()
        self.module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        text = path.read_text(encoding="utf-8")
        self.lines = text.splitlines()
        self.tree = ast.parse(text)

    def constants(self) -> Iterator[tuple[str, int]]:
        """Yield the names in upper case that the module gives something to, with their lines."""
        for node in self.tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets:
                if isinstance(target, ast.Name) and target.id.isupper():
                    yield target.id, node.lineno

    def comment(self, line: int) -> str:
        """Return the comment right above the line."""
        above = []
        for text in reversed(self.lines[: line - 1]):
            if not text.startswith("#"):
                break
            above.append(text.lstrip("# "))
        return " ".join(reversed(above))

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Yield all functions and methods."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node

    def users(self, name: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Return the functions that name it."""
        return [function for function in self.functions() if name in _names(function)]

    def purpose(self, name: str) -> str:
        """Return the first sentence of whatever uses it and has a docstring: a function or the module."""
        tried = {name}
        waiting = self.users(name)
        for function in waiting:  # grows meanwhile
            if said := ast.get_docstring(function):
                return first_sentence(said)
            if function.name not in tried:
                tried.add(function.name)
                waiting += self.users(function.name)
        return first_sentence(ast.get_docstring(self.tree) or "")

    def composers(self) -> frozenset[str]:
        """Return those of SQLAlchemy's words for a statement that the module imports."""
        return frozenset(
            alias.name
            for node in self.tree.body
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy")
            for alias in node.names
            if alias.name in COMPOSERS
        )


def sources() -> Iterator[Source]:
    """Yield the modules of the product, in the order of their paths."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield Source(path)


def statements(source: Source) -> Iterator[Statement]:
    """Yield the module's statements. Of what is nothing but a part of another only the whole is given."""
    names = dict(source.constants())
    if not names or source.module.endswith("__main__"):
        return
    module = importlib.import_module(source.module)
    found = {name: value for name in names if is_statement(value := getattr(module, name))}
    texts = {name: str(value) for name, value in found.items()}
    for name, value in found.items():
        is_part = any(texts[name].strip() in text for other, text in texts.items() if other != name)
        is_made_into_others = re.search(r"\{\w+\}", texts[name])
        if (is_part or is_made_into_others) and not source.users(name):
            continue
        sql, parameters = written(value)
        said = source.comment(names[name]) or source.purpose(name)
        yield Statement(source.path, name, sql, parameters, said)


def is_statement(value: object) -> bool:
    """Return whether a constant is a whole statement, as text or as SQLAlchemy's construct."""
    if isinstance(value, TextClause):
        return VERBS.match(value.text) is not None
    return isinstance(value, Executable) or (isinstance(value, str) and VERBS.match(value) is not None)


def written(value: object) -> tuple[str, tuple[str, ...]]:
    """Return a statement as the driver sends it, and the names of its parameters."""
    if isinstance(value, str):
        return _plain(value), ()
    compiled = value.compile(dialect=DIALECT)  # type: ignore[attr-defined]
    return _plain(str(compiled)), tuple(dict.fromkeys(compiled.positiontup or ()))


def composed(source: Source) -> Iterator[Composed]:
    """Yield the module's functions that put statements together."""
    composers = source.composers()
    for function in source.functions():
        calls = {
            node.func.id
            for node in ast.walk(function)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        if calls & composers:
            said = ast.get_docstring(function)
            yield Composed(
                source.path, function.name, first_sentence(said) if said else source.purpose(function.name)
            )


def first_sentence(text: str) -> str:
    """Return the first sentence of a docstring, on one line."""
    return sentences(text.partition("\n\n")[0])[0]


def sentences(text: str) -> list[str]:
    """Return the sentences of a text; a dot within a name ends none."""
    return re.split(r"(?<=[.?!]) +(?=[A-Z`$])", " ".join(text.split()))


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _plain(sql: str) -> str:
    lines = [line.rstrip() for line in sql.strip("\n").split("\n")]
    first, *rest = lines
    if first[:1].isspace():
        return textwrap.dedent("\n".join(lines)).strip()
    return "\n".join([first, *textwrap.dedent("\n".join(rest)).split("\n")]).strip()
