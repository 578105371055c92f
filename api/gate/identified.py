"""The middleware that names each request: an id, and its trace, in every answer."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.gate.errors import answer_to
from api.gate.identification import NAMES, SENT, TRACE_HEADER, identify
from api.gate.tracing import in_its_trace

HEADERS = {"request_id": SENT, "trace_id": TRACE_HEADER.lower().encode()}


class Identified:
    """ASGI middleware that names each request, and answers for what failed without an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; an error that nobody answered is answered, and raised for the server's log."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with in_its_trace(scope):
            names = identify(scope)
            token = NAMES.set(names)
            try:
                await self._answer(scope, receive, send, names)
            finally:
                NAMES.reset(token)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, names: Mapping[str, str]) -> None:
        headers = [(HEADERS[field], name.encode()) for field, name in names.items()]
        is_answered = False

        async def send_named(message: Message) -> None:
            nonlocal is_answered
            if message["type"] == "http.response.start":
                is_answered = True
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception as error:
            if not is_answered:
                await answer_to(error, Request(scope))(scope, receive, send_named)
            raise
