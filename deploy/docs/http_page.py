"""docs/reference/http.md: the API's operations and bodies, by its OpenAPI document."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from api.main import create_app
from deploy.docs.markdown import Schema, code, default, page, shape, table
from shared.settings import Settings

INTRODUCTION = """\
The running API has the same as `/openapi.json`, and as a page to try it on at `/docs`, which loads nothing
from elsewhere. Its [metrics](../metrics.md) are at `/metrics`. Every other answer is JSON. HEAD is answered
wherever GET is, and every answer has an `X-Request-ID`:
[what the API does not do, and why](../explanation/what-the-api-does-not-do.md). What happens under load, and
with requests that never end, is described in [the architecture](../architecture.md#overload-apigate)."""

UNTAGGED = "health"
TITLES = {"collections": "Collections", "admin": "Administrators", UNTAGGED: "Health"}
ANSWER = ("status", "body", "when")

Row = Sequence[str]


def http_page() -> str:
    document = openapi()
    parts = [INTRODUCTION]
    for tag, title in TITLES.items():
        operations = {
            f"{method.upper()} {path}": operation
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if operation.get("tags", [UNTAGGED]) == [tag]
        }
        parts.append(f"## {title}")
        parts += section(operations, document["components"]["securitySchemes"])
    parts.append("## Bodies")
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts += body(name, schema)
    return page("HTTP API", *parts)


def openapi() -> dict[str, Any]:
    """Return the document of a service that is never started."""
    given = {"database_url": "postgresql://localhost/none", "redis_url": "redis://localhost"}
    return create_app(Settings.model_validate(given)).openapi()


def section(operations: Mapping[str, Schema], tokens: Schema) -> Iterator[str]:
    given = [answers(operation) for operation in operations.values()]
    common = [row for row in given[0] if len(given) > 1 and all(row in rows for rows in given)]
    taken = sorted({scheme for operation in operations.values() for scheme in schemes(operation)})
    if taken:
        rows = [(carried(tokens[scheme]), tokens[scheme]["description"]) for scheme in taken]
        yield table(("header, one of these", "meaning"), rows)
    if common:
        yield "Each of them may also answer:"
        yield table(ANSWER, common)
    for name, operation in operations.items():
        yield from described(name, operation, common)


def schemes(operation: Schema) -> list[str]:
    return [scheme for choice in operation.get("security", ()) for scheme in choice]


def described(name: str, operation: Schema, common: Sequence[Row]) -> Iterator[str]:
    yield f"### {code(name)}"
    yield str(operation.get("description", operation["summary"]))
    if parameters := operation.get("parameters"):
        yield table(("parameter", "in", "value", "default", "meaning"), map(parameter, parameters))
    if "requestBody" in operation:
        must = "" if operation["requestBody"].get("required") else ", which may be left out"
        yield f"Body: {shape(content(operation['requestBody']))}{must}."
    yield table(ANSWER, [row for row in answers(operation) if row not in common])


def carried(scheme: Schema) -> str:
    return code("Authorization: Bearer …" if scheme["type"] == "http" else f"{scheme['name']}: …")


def parameter(given: Schema) -> Row:
    schema = given["schema"]
    otherwise = "required" if given.get("required") else default(schema.get("default"))
    return code(given["name"]), given["in"], shape(schema), otherwise, given.get("description", "")


def content(given: Schema) -> Schema:
    schema: Schema = given["content"]["application/json"]["schema"]
    return schema


def answers(operation: Schema) -> list[Row]:
    return [answer(status, given) for status, given in sorted(operation["responses"].items())]


def answer(status: str, given: Schema) -> Row:
    headers = "".join(f", with `{name}`" for name in given.get("headers", ()))
    what = shape(content(given)) if "content" in given else ""
    when = "It is done." if given["description"] == "Successful Response" else given["description"]
    return status, what + headers, when


def body(name: str, schema: Schema) -> Iterator[str]:
    yield f"### {name}"
    yield schema.get("description", "")
    if "properties" not in schema:
        yield f"One of {shape(schema)}."
        return
    required = schema.get("required", ())
    rows = [
        (
            code(field),
            shape(given),
            "required" if field in required else default(given.get("default")),
            given.get("description", ""),
        )
        for field, given in schema["properties"].items()
    ]
    yield table(("field", "value", "default", "meaning"), rows)
