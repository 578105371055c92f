"""Routes that answer HEAD where they answer GET, and say with 405 whatever their path does take."""

from collections.abc import Callable
from http import HTTPStatus

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from api.gate.errors import answer_to
from api.gate.trailing_slash import SLASH, has_slash, redirect

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class ForgivingRoute(APIRoute):
    """A route that also takes HEAD for its GET, and its path with slashes behind it, to redirect there."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        asked = self.as_get(scope)
        if not has_slash(asked):
            return super().matches(asked)
        match, child = super().matches({**asked, "path": asked["path"].rstrip(SLASH)})
        return (match if match is Match.NONE else Match.FULL), child

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self.as_get(scope)
        if has_slash(asked):
            await self.refer(redirect, Request(scope))(scope, receive, send)
        elif not self.takes(asked["method"]):
            await self.refer(self.refuse_method, Request(scope))(scope, receive, send)
        else:
            await super().handle(asked, receive, send)

    def takes(self, method: str) -> bool:
        return method in (self.methods or ())

    def as_get(self, scope: Scope) -> Scope:
        """Return the request, HEAD as a GET: of what that is answered the server sends the head alone."""
        is_head = scope["type"] == "http" and scope["method"] == "HEAD" and self.takes("GET")
        return {**scope, "method": "GET"} if is_head else scope

    def refer(self, answer: Callable[[Request], Response], request: Request) -> Response:
        """Answer a request that comes no further than here; a route with a gate asks for the token first."""
        return answer(request)

    def refuse_method(self, request: Request) -> Response:
        refusal = HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": self.allowed(request.scope)})
        return answer_to(refusal, request)

    def allowed(self, scope: Scope) -> str:
        """Return all that the path takes, whichever routes of the app take it: RFC 9110, 10.2.1."""
        routes = scope["app"].routes
        return ", ".join(
            method
            for method in METHODS
            if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
        )
