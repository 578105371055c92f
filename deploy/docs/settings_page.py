"""docs/reference/settings.md: the environment's variables, by the fields of `shared.settings`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from pydantic.fields import FieldInfo

from deploy.docs.markdown import Schema, code, default, page, shape, table
from shared.postgres.libpq_parameters import HONOURED, LIBPQ_ALONE, ONLY, OURS
from shared.settings import CommandSettings, DatabaseSettings, Settings, TurnSettings
from shared.variables import WORKER

COMMON: AbstractSet[str] = CommandSettings.model_fields.keys()
READERS: Mapping[str, Mapping[str, FieldInfo]] = {
    "API": {
        name: field for name, field in Settings.model_fields.items() if name in COMMON or name not in WORKER
    },
    "worker": {name: Settings.model_fields[name] for name in WORKER},
    "commands": TurnSettings.model_fields,
    "migrations": DatabaseSettings.model_fields,
}


def names(parameters: Iterable[str]) -> str:
    return ", ".join(code(name) for name in sorted(parameters))


INTRODUCTION = """\
Every setting is a variable of the environment, read once when a process starts. Blanks and line breaks around
a value do not belong to it. An empty variable counts as one that is not set; one of nothing but blanks is
refused. A process that lacks one, or finds one that it cannot use, says which and what to do, and ends with
exit status 2 before it has begun anything. No value is ever shown, but for the path in `LOG_FILE`.
[The commands](commands.md) are all but `python -m worker.dashboard`, which reads no variable."""

ADDRESS = f"""\
## DATABASE_URL

It means what it means to `psql` and whatever else uses libpq: `sslmode` and the files beside it, `options`,
`target_session_attrs`, several hosts, `keepalives` and the others. Escape `@ : /` in user and password, as
`%40 %3A %2F`. Where it says nothing, libpq's own variables (`PGHOST`, `PGSSLMODE`, …) count as well.

| parameters | become |
|---|---|
| {names(HONOURED)} | what they ask for |
| {names(OURS)} | nothing: `pg_stat_activity` is to name our processes, and asyncpg reads UTF-8 |
| {names(ONLY)} | what they ask for, unless the driver cannot do that: then a refusal that names them |
| {names(LIBPQ_ALONE)}, and what libpq does not know | a refusal that names them |

- **TLS is never weaker than was asked for.** asyncpg does not bind to the channel, so what Neon hands out,
  `channel_binding=require`, is refused: say `sslmode=verify-full&sslrootcert=system` in its place, which
  shuts out the same people, but for whom holds a trusted authority's certificate for that name. `system` are
  those that the machine trusts. Files are tried before anything starts.
- **Of several hosts** each is tried in turn, for its share of the five seconds. Unless `target_session_attrs`
  says `any` or `primary`, the first that takes writes is used; `standby`, `prefer-standby` and `read-only`
  are refused.
- **`connect_timeout`** may make the five seconds for a connection fewer, not more: requests are not to wait.
- **A home that the process may not enter** holds no certificates and no passwords for it.

## REDIS_URL

One host, and of parameters only `db`, `client_name`, `health_check_interval`, `protocol` and, with `rediss://`,
those that begin with `ssl_`. How long we wait for Redis is ours to bound.

## Tokens

A token may hold whatever an HTTP header carries: no control characters, and no letters beyond Latin-1.
Clients send it as UTF-8."""

TRACES = """\
## Traces

The variables of [traces](../tracing.md) are OpenTelemetry's own: `OTEL_EXPORTER_OTLP_ENDPOINT` and others."""


def settings_page() -> str:
    heads = ("variable", "read by", "value", "default", "meaning")
    return page("Settings", INTRODUCTION, table(heads, rows()), ADDRESS, TRACES)


def rows() -> Iterator[Sequence[str]]:
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
    if len(demanding) == of:
        return "required"
    return f"required by {' and '.join(demanding)}" if demanding else ""
