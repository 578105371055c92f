"""How a twin is put in the place of the mechanism that it lacks."""

import importlib
import re
from collections.abc import Callable

import pytest
from sqlalchemy import TextClause, text

Put = Callable[[pytest.MonkeyPatch], None]


def replaced(statement: str, old: str, new: str) -> str:
    """Replace words, however they are laid out, that must be there: a twin has to differ."""
    words = r"\s+".join(map(re.escape, old.split()))
    twin, count = re.subn(words, lambda _: new, statement)
    assert count
    return twin


def instead_of(target: str, twin: object) -> Put:
    """Put an object in the place of another, named by its module and its name there."""

    def put(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(target, twin)

    return put


def with_statement(target: str, old: str, new: str) -> Put:
    """Change a part of an SQL statement, named by its module and its name there."""

    def put(patch: pytest.MonkeyPatch) -> None:
        module, _, name = target.rpartition(".")
        statement = getattr(importlib.import_module(module), name)
        twin = replaced(str(statement), old, new)
        patch.setattr(target, text(twin) if isinstance(statement, TextClause) else twin)

    return put


def all_of(*puts: Put) -> Put:
    """Put several in place at once."""

    def put(patch: pytest.MonkeyPatch) -> None:
        for one in puts:
            one(patch)

    return put
