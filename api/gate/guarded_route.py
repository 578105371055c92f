"""Routes behind a gate, which bound their work and answer their own errors in whichever app has them."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from sqlalchemy.exc import SQLAlchemyError

from api.context import of_request
from api.gate.admission import Bulkhead, Bulkheads
from api.gate.body import with_whole_body
from api.gate.errors import answer_to
from api.gate.forgiving_route import ForgivingRoute
from api.gate.tracing import in_its_trace
from shared.postgres.faults import is_outdated_plan


class GuardedRoute(ForgivingRoute):
    """A route that passes its gate, reads the body within bounds and finds a place before it does anything.

    The host app's exception handlers are neither needed nor used, so the answers are the same everywhere.
    """

    @staticmethod
    def admit(request: Request) -> None:
        """Let the request pass or raise the refusal that it gets; each kind of route has its own gate."""
        raise NotImplementedError

    @staticmethod
    def bulkhead(bulkheads: Bulkheads, request: Request) -> Bulkhead:
        """Choose the bulkhead within which the request works; it holds a place until it is answered."""
        raise NotImplementedError

    def refer(self, answer: Callable[[Request], Response], request: Request) -> Response:
        """Ask for the token first: a caller without it must not learn which paths exist."""
        try:
            self.admit(request)
        except Exception as error:  # noqa: BLE001 - as below
            return answer_to(error, request)
        return answer(request)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        takes_body = self.body_field is not None

        async def handle_bounded(request: Request) -> Response:
            bulkheads = of_request(request).bulkheads
            if takes_body:
                async with bulkheads.bodies.place():
                    request = await with_whole_body(request)
            async with self.bulkhead(bulkheads, request).place():
                try:
                    return await handle(request)
                except SQLAlchemyError as error:
                    if not is_outdated_plan(error):
                        raise
                return await handle(request)  # of the first attempt nothing was committed

        async def handle_guarded(request: Request) -> Response:
            try:
                with in_its_trace(request.scope):
                    self.admit(request)
                    return await handle_bounded(request)
            except Exception as error:  # noqa: BLE001 - a host's own handler might show the driver's text
                return answer_to(error, request)

        return handle_guarded
