"""The console's parts, served to all where a token is configured: they hold no data."""

from collections.abc import Callable
from functools import cache
from http import HTTPStatus

from fastapi import APIRouter, HTTPException, Request, Response

from api.admin import console as page
from api.context import of_request
from api.gate.admission import Bulkhead, Bulkheads
from api.gate.guarded_route import GuardedRoute
from shared.page_headers import POLICY, page_headers

HEADERS = {
    **page_headers({**POLICY, "img-src": "'self' data:", "require-trusted-types-for": "'script'"}),
    "Cache-Control": "no-cache",
}


def require_configured_token(request: Request) -> None:
    """Let the request pass where administrators have a token.

    Raises:
        HTTPException: none is configured: the framework's own 404, as if nothing were here.

    """
    if not of_request(request).settings.admin_token:
        raise HTTPException(HTTPStatus.NOT_FOUND)


class ConsoleRoute(GuardedRoute):
    """A route to a part of the page."""

    admit = staticmethod(require_configured_token)

    @staticmethod
    def bulkhead(bulkheads: Bulkheads, _request: Request) -> Bulkhead:
        return bulkheads.admin


console = APIRouter(prefix="/console", route_class=ConsoleRoute, include_in_schema=False)


@console.get("")
async def read_page() -> Response:
    return _part(page.html, "text/html")


@console.get("/style.css")
async def read_style() -> Response:
    return _part(page.style, "text/css")


@console.get("/script.js")
async def read_script() -> Response:
    return _part(page.script, "text/javascript")


def _part(made: Callable[[], str], media_type: str) -> Response:
    return Response(_made(made), media_type=media_type, headers=HEADERS)


@cache
def _made(made: Callable[[], str]) -> bytes:
    return made().encode()
