"""Routes behind a gate, which answer their own errors in whichever app they are mounted."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.errors import answer_to


class GuardedRoute(APIRoute):
    """A route that passes its gate before it reads the body, and answers its own errors.

    The host app's exception handlers are neither needed nor used, so the answers are the same everywhere.
    """

    @staticmethod
    def admit(request: Request) -> None:
        """Let the request pass or raise the refusal that it gets; each kind of route has its own gate."""
        raise NotImplementedError

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler in the gate."""
        handle = super().get_route_handler()

        async def handle_guarded(request: Request) -> Response:
            try:
                self.admit(request)
                return await handle(request)
            except Exception as error:  # noqa: BLE001 - a host's own handler might show the driver's text
                return answer_to(error, request)

        return handle_guarded
