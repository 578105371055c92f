"""docs/reference/statements.md: every statement that PostgreSQL gets, whole."""

import re
from collections.abc import Iterable

from deploy.docs.markdown import code, page, table
from deploy.docs.statements import Composed, Statement, composed, sentences, sources, statements

SERVED = re.compile(r"(Both )?served by", re.IGNORECASE)
INTRODUCTION = """\
For those who answer for the database: each statement as PostgreSQL gets it, with what it guarantees and,
where the code says so, the index that serves it. Values are parameters, `$1` and so on, never part of the
text. Words in braces, and `%s`, are put in by the function: its own conditions, and names of tables."""

COMPOSED = """\
## Put together while they run

These functions choose columns, conditions or assignments by what they are asked for, and SQLAlchemy writes
the statement: every value is a parameter."""


def statements_page() -> str:
    """Return the page."""
    modules = [(list(statements(source)), list(composed(source))) for source in sources()]
    sections = [section(found) for found, _ in modules if found]
    functions = [function for _, found in modules for function in found]
    return page("Statements", INTRODUCTION, *sections, COMPOSED, table_of(functions))


def section(found: list[Statement]) -> str:
    """Return what one module says to PostgreSQL."""
    return "\n\n".join([f"## {code(found[0].path)}", *map(entry, found)])


def entry(statement: Statement) -> str:
    """Return one statement with what is said of it."""
    said = sentences(statement.said)
    served = [sentence for sentence in said if SERVED.match(sentence)]
    parts = [
        f"### {statement.name}",
        " ".join(sentence for sentence in said if sentence not in served),
        " ".join(served),
        ", ".join(f"`${number}` {name}" for number, name in enumerate(statement.parameters, start=1)),
        f"```sql\n{statement.sql}\n```",
    ]
    return "\n\n".join(part for part in parts if part)


def table_of(functions: Iterable[Composed]) -> str:
    """Return the functions that make statements."""
    rows = [(code(function.path), code(function.name), function.said) for function in functions]
    return table(("module", "function", "what it does"), rows)
