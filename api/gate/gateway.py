"""The gate that every request of people passes: the gateway's token, where one is configured."""

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.types import Scope

from api.context import of_request
from api.gate.admission import Bulkhead, Bulkheads
from api.gate.errors import SeveralCallersError, UnknownGatewayError
from api.gate.guarded_route import GuardedRoute
from api.gate.tokens import carries_token

HEADER = "X-Gateway-Token"
CALLER = "User-ID"
NEEDED = "The gateway's token. Needed only where the service was given one."

# For the OpenAPI document: the gate itself comes before any dependency, and before the body.
DOCUMENTED = [
    Security(HTTPBearer(scheme_name="GatewayBearer", description=NEEDED, auto_error=False)),
    Security(APIKeyHeader(name=HEADER, scheme_name="GatewayToken", description=NEEDED, auto_error=False)),
]


def require_gateway_token(request: Request) -> None:
    """Let the request pass when no token is configured or it carries the right one.

    Raises:
        UnknownGatewayError: it does not.

    """
    token = of_request(request).settings.gateway_token
    if token is not None and not carries_token(request, token, HEADER):
        raise UnknownGatewayError


def require_one_caller(request: Request) -> None:
    """Let the request pass unless it names two callers: a proxy that adds its own would vouch for the first.

    Raises:
        SeveralCallersError: it does.

    """
    if len(request.headers.getlist(CALLER)) > 1:
        raise SeveralCallersError


class GatewayRoute(GuardedRoute):
    """A route for people: their User-ID counts, because the gateway vouches for it."""

    @staticmethod
    def admit(request: Request) -> None:
        require_gateway_token(request)
        require_one_caller(request)

    def allowed(self, scope: Scope) -> str:
        """Return all that the path takes; of a single collection `PUT` alone, as it was recorded."""
        return "PUT" if self.takes("PUT") else super().allowed(scope)

    @staticmethod
    def bulkhead(bulkheads: Bulkheads, request: Request) -> Bulkhead:
        return bulkheads.reads if request.method == "GET" else bulkheads.writes
