"""What a path with a slash too many is answered: the right one, as of old, but from behind the gate.

The framework's own redirect comes before any gate, and makes up a scheme and a host that only a proxy knows.
"""

from http import HTTPStatus
from urllib.parse import quote

from fastapi import Request, Response
from starlette.types import Scope

SLASH = "/"


def has_slash(scope: Scope) -> bool:
    path: str = scope["path"] if scope["type"] == "http" else ""
    return path.endswith(SLASH)


def redirect(request: Request) -> Response:
    """Make the redirect: without a host, and relative, so that it is right where a proxy takes a prefix off.

    Of several slashes clients resolve it each in their own way, so there the path is whole.
    """
    path: str = request.scope["path"]
    right = path.rstrip(SLASH)
    is_one = len(path) - len(right) == 1
    location = f"../{quote(right.rpartition(SLASH)[2], safe='')}" if is_one else quote(right)
    query = request.scope["query_string"].decode("latin-1")
    headers = {"Location": f"{location}?{query}" if query else location}
    return Response(status_code=HTTPStatus.TEMPORARY_REDIRECT, headers=headers)
