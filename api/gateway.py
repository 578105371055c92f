"""The gate that every request of the router passes, in whichever app the router is mounted."""

import hmac
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.context import of_request
from api.errors import UnknownGatewayError, answer_to

BEARER = "bearer"


def presented_tokens(request: Request) -> list[bytes]:
    """Collect what the request offers as the gateway's token, as the bytes that were sent."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    offered = [credentials.strip(" ")] if scheme.lower() == BEARER else []
    offered += request.headers.getlist("x-gateway-token")
    return [token.encode("latin-1") for token in offered]  # the encoding of headers


def require_gateway_token(request: Request) -> None:
    """Let the request pass when no token is configured or it carries the right one.

    Raises:
        UnknownGatewayError: it does not.

    """
    token = of_request(request).settings.gateway_token
    if token is None:
        return
    expected = token.get_secret_value().encode()
    if not any(hmac.compare_digest(offered, expected) for offered in presented_tokens(request)):
        raise UnknownGatewayError


class GuardedRoute(APIRoute):
    """A route that checks the gateway's token before it reads the body, and answers its own errors.

    The host app's exception handlers are neither needed nor used, so the answers are the same everywhere.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler in the gate."""
        handle = super().get_route_handler()

        async def handle_guarded(request: Request) -> Response:
            try:
                require_gateway_token(request)
                return await handle(request)
            except Exception as error:  # noqa: BLE001 - a host's own handler might show the driver's text
                return answer_to(error, request)

        return handle_guarded
