"""The tables of docs/logs.md: every line of the log with its fields, out of its contract."""

from collections.abc import Mapping

from deploy.docs.markdown import MADE_BELOW, code, table
from shared.logs.contract import CONTRACT
from shared.logs.declaring import COMMON, Field


def log_page() -> str:
    """Return what follows the page's mark; what people wrote above it stays."""
    parts = [MADE_BELOW, "## Fields of every line", _fields(COMMON), "## Events"]
    for event in CONTRACT.values():
        levels = " or ".join(event.levels)
        parts += [f"### {event.name}", f"From {event.writers}. Level {levels}.\n{event.meaning}"]
        parts += [_fields(event.fields)] if event.fields else []
    return "\n\n".join(parts) + "\n"


def _fields(fields: Mapping[str, Field]) -> str:
    rows = ((code(name), _kind(field), field.meaning) for name, field in fields.items())
    return table(("field", "type", "meaning"), rows)


def _kind(field: Field) -> str:
    return field.type + (" or null" if field.nullable else "") + (", may be absent" if field.optional else "")
