"""docs/reference/settings.md: the environment's variables, by the fields of `shared.settings`."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from pydantic.fields import FieldInfo

from deploy.docs.markdown import Schema, code, default, page, shape, table
from shared.settings import CommandSettings, DatabaseSettings, Settings
from shared.variables import WORKER

COMMON: AbstractSet[str] = CommandSettings.model_fields.keys()
READERS: Mapping[str, Mapping[str, FieldInfo]] = {
    "API": {
        name: field for name, field in Settings.model_fields.items() if name in COMMON or name not in WORKER
    },
    "worker": {name: Settings.model_fields[name] for name in WORKER},
    "commands": CommandSettings.model_fields,
    "migrations": DatabaseSettings.model_fields,
}

INTRODUCTION = """\
Every setting is a variable of the environment, read once when a process starts. An empty variable counts as
one that is not set. A process that lacks one, or finds one malformed, says which and ends: with exit status
2, the API and `alembic` with 1. No value is ever shown. [The commands](commands.md) are all but
`python -m worker.dashboard`, which reads no variable."""

TRACES = """\
The variables of [traces](../tracing.md) are OpenTelemetry's own: `OTEL_EXPORTER_OTLP_ENDPOINT` and others."""


def settings_page() -> str:
    """Return the page."""
    heads = ("variable", "read by", "value", "default", "meaning")
    return page("Settings", INTRODUCTION, table(heads, rows()), TRACES)


def rows() -> Iterator[Sequence[str]]:
    """Yield a row for each setting."""
    shapes = Settings.model_json_schema(mode="validation")["properties"]
    for name, field in Settings.model_fields.items():
        readers = {reader: fields[name] for reader, fields in READERS.items() if name in fields}
        demanding = [reader for reader, theirs in readers.items() if theirs.is_required()]
        yield (
            code(name.upper()),
            "all" if readers.keys() == READERS.keys() else ", ".join(readers),
            shape(without_null(shapes[name])),
            needed(demanding, of=len(readers)) or default(field.default),
            field.description or "",
        )


def without_null(schema: Schema) -> Schema:
    """Return the schema of the values that can be given: the environment knows no null."""
    choices: list[Schema] = schema.get("anyOf", [schema])
    return choices[0]


def needed(demanding: Sequence[str], *, of: int) -> str:
    """Say by whom a variable is required."""
    if len(demanding) == of:
        return "required"
    return f"required by {' and '.join(demanding)}" if demanding else ""
